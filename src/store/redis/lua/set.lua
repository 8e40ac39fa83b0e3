-- Writes entries. ARGV: ns, then for each entry key, value, TTL in ms ('' for none), tags
-- separated by line feeds.
-- Returns for each entry {1 when new or 0 when replaced, version}.

local answers, keys = {}, {}
for i = 2, #ARGV, 4 do
  local key, value, ttl, tags = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local id = ns .. ':' .. key
  local value_key, meta_key = 'cache:' .. id, 'cache_meta:' .. id
  local alive = redis.call('EXISTS', value_key) == 1
  local previous = redis.call('HMGET', meta_key, 'size_bytes', 'tags')

  -- The first write of all: where memory is short it fails, and nothing has happened yet.
  local score = '+inf'
  if ttl == '' then
    redis.call('SET', value_key, value)
  else
    score = integer(now_ms + ttl)
    redis.call('SET', value_key, value, 'PXAT', score)
  end

  if previous[1] and not alive then
    count_loss(redis.call('ZSCORE', index, key) or '+inf')
  end
  local version = next_version()
  redis.call('HSET', meta_key, 'created_at', integer(now_ms), 'size_bytes', #value, 'version', version)
  if not alive then
    redis.call('HSET', meta_key, 'access_count', 0, 'last_accessed', integer(now_ms))
  end
  if (previous[2] or '') ~= tags then
    untag(key, previous[2])
    if tags == '' then
      redis.call('HDEL', meta_key, 'tags')
    else
      redis.call('HSET', meta_key, 'tags', tags)
      for tag in string.gmatch(tags, '[^\n]+') do
        redis.call('SADD', 'cache_tag:' .. ns .. ':' .. tag, key)
      end
    end
  end
  books[KEYS_TOTAL] = books[KEYS_TOTAL] + redis.call('ZADD', index, score, key)
  books[BYTES_TOTAL] = books[BYTES_TOTAL] + #value - tonumber(previous[1] or 0)
  keys[#keys + 1] = key
  answers[#answers + 1] = { alive and 0 or 1, version }
end
save_books()
publish(keys)
return answers
