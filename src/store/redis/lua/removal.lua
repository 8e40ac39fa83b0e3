-- Comes after `tags.lua` in scripts that remove entries.

-- Removes a key from everything. Pass `meta`, its size and tags, and `place` if they are known already.
-- Returns whether the value existed; if not, also the score that the key had in the index (its expiry), false if it
-- was not in the index. Also removes keys of the entry that hold another type; these were not counted anywhere.
--
-- The first write, here and in the other scripts that remove entries, is a deletion. A Redis that is out of memory
-- refuses the first write of a script if it may need memory. Once it has accepted a write of the script, it accepts
-- all others (`SCRIPT_WRITE_DIRTY` in its script.c).
local function take_out(key, meta, place)
  work = work + 1
  local id = ns .. ':' .. key
  local meta_key = 'cache_meta:' .. id
  meta = meta or redis.pcall('HMGET', meta_key, 'size_bytes', 'tags')
  local size = not meta.err and tonumber(meta[1] or '')
  local unlinked = redis.call('UNLINK', 'cache:' .. id, meta_key)
  local alive = unlinked == ((meta[1] or meta.err) and 2 or 1)
  local bucket = name_of(bucket_at(place or place_of(key)))
  local score = not alive and redis.pcall('ZSCORE', bucket, key)
  if type(score) == 'table' then
    score = false
  end
  local removed = redis.pcall('ZREM', bucket, key)
  if removed == 1 and size then
    books.keys = books.keys - 1
    books.bytes = books.bytes - size
    books.charged = books.charged - charge_of(key, meta[2], size)
  elseif removed == 1 or type(removed) == 'table' or (size and not books.is_in_repair) then
    -- The entry's size, its bucket or its index member is lost.
    is_lost = true
  end
  if size then
    untag(key, meta[2])
  end
  return alive, score
end

-- Updates when a bucket is due next.
local function refresh_due(start)
  work = work + 0.5
  redis.pcall('ZREM', due, integer(start))
  local first = redis.pcall('ZRANGE', name_of(start), 0, 0, 'WITHSCORES')
  if first[2] and first[2] ~= 'inf' then
    redis.pcall('ZADD', due, first[2], integer(start))
  end
end

-- Removes expired entries until `most` work is done. Returns how many, and whether there may be more.
local function take_expired(most)
  local taken = 0
  local starts = redis.pcall('ZRANGEBYSCORE', due, '-inf', now_text, 'LIMIT', 0, most)
  if starts.err then
    is_lost = true
    return 0, false
  end
  for _, start in ipairs(starts) do
    if work >= most then
      books.expirations = books.expirations + taken
      return taken, true
    end
    local expired = redis.pcall('ZRANGEBYSCORE', name_of(start), '-inf', now_text, 'LIMIT', 0, most)
    if expired.err or (#expired == 0 and not redis.pcall('ZSCORE', name_of(start), MARK)) then
      is_lost = true
      expired = {}
    end
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
