-- Stands behind the index where entries are taken out.

-- Takes a key out of everything. Returns whether its value was there, and the score it had in the
-- index (its expiry), false when it was in no book. A value goes first: where Redis is out of
-- memory, what follows a deletion in a script is never refused.
local function take_out(key)
  local id = ns .. ':' .. key
  local alive = redis.call('UNLINK', 'cache:' .. id) == 1
  local bucket = index .. bucket_at(place_of(key))
  local score = redis.call('ZSCORE', bucket, key)
  if score then
    local meta = redis.call('HMGET', 'cache_meta:' .. id, 'size_bytes', 'tags')
    redis.call('UNLINK', 'cache_meta:' .. id)
    redis.call('ZREM', bucket, key)
    untag(key, meta[2])
    books[KEYS_TOTAL] = books[KEYS_TOTAL] - 1
    books[BYTES_TOTAL] = books[BYTES_TOTAL] - tonumber(meta[1] or 0)
  end
  return alive, score
end

-- Notes again by when a bucket has to be looked at.
local function refresh_due(start)
  local first = redis.call('ZRANGE', index .. start, 0, 0, 'WITHSCORES')
  if first[2] and first[2] ~= 'inf' then
    redis.call('ZADD', due, first[2], integer(start))
  else
    redis.call('ZREM', due, integer(start))
  end
end

-- Takes up to `most` expired entries out. Returns how many, and whether there may be more.
local function take_expired(most)
  local taken = 0
  local starts = redis.call('ZRANGEBYSCORE', due, '-inf', integer(now_ms), 'LIMIT', 0, most)
  for _, start in ipairs(starts) do
    if taken >= most then
      return taken, true
    end
    local expired = redis.call('ZRANGEBYSCORE', index .. start, '-inf', integer(now_ms), 'LIMIT', 0, most - taken)
    for _, key in ipairs(expired) do
      local _, score = take_out(key)
      count_loss(score)
    end
    taken = taken + #expired
    refresh_due(start)
  end
  return taken, #starts == most
end
