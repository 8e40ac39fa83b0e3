-- Stands behind the index where entries are taken out.

-- Takes a key out of everything; `meta`, its size and tags, and `place` where they are known already.
-- Returns whether its value was there; if not, the score the key had in the index (its expiry), false
-- when it was in no book.
--
-- Here and in what follows the first write is a deletion: where Redis is out of memory it refuses the
-- first write of a script if that may need more, and none behind one that it took
-- (`SCRIPT_WRITE_DIRTY` in its script.c).
local function take_out(key, meta, place)
  work = work + 1
  local id = ns .. ':' .. key
  local meta_key = 'cache_meta:' .. id
  meta = meta or redis.call('HMGET', meta_key, 'size_bytes', 'tags')
  local unlinked = redis.call('UNLINK', 'cache:' .. id, meta_key)
  local alive = unlinked == (meta[1] and 2 or 1)
  local start = bucket_at(place or place_of(key))
  local bucket = name_of(start)
  local score = not alive and redis.call('ZSCORE', bucket, key)
  if redis.call('ZREM', bucket, key) == 1 then
    untag(key, meta[2])
    books.keys = books.keys - 1
    books.bytes = books.bytes - tonumber(meta[1] or 0)
  end
  return alive, score
end

-- Notes again by when a bucket has to be looked at.
local function refresh_due(start)
  work = work + 0.5
  redis.call('ZREM', due, integer(start))
  local first = redis.call('ZRANGE', name_of(start), 0, 0, 'WITHSCORES')
  if first[2] and first[2] ~= 'inf' then
    redis.call('ZADD', due, first[2], integer(start))
  end
end

-- Takes expired entries out until `most` work is done. Returns how many, and whether there may be
-- more.
local function take_expired(most)
  local taken = 0
  local starts = redis.call('ZRANGEBYSCORE', due, '-inf', now_text, 'LIMIT', 0, most)
  for _, start in ipairs(starts) do
    local expired = redis.call('ZRANGEBYSCORE', name_of(start), '-inf', now_text, 'LIMIT', 0, most)
    for _, key in ipairs(expired) do
      if work >= most then
        books.expirations = books.expirations + taken
        return taken, true
      end
      take_out(key)
      taken = taken + 1
    end
    refresh_due(start)
  end
  books.expirations = books.expirations + taken
  return taken, #starts == most
end
