-- Writes entries. ARGV: ns, the bytes that its entries may take on this shard (0: any number), its
-- eviction policy, then for each entry key, value, TTL in ms ('' for none), tags separated by line
-- feeds.
-- Returns {answers, how many others went to make room}. The answers are for each entry {1 when new
-- or 0 when replaced, version}, -1 when there is no room for it, or 0 from the first one on that is
-- to be asked for again: making room is done in bounded steps.

local limit, policy = tonumber(ARGV[2]), ARGV[3]
local answers, changed = {}, {}
for i = 4, #ARGV, 4 do
  local key, value, ttl, tags = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local id = ns .. ':' .. key
  local value_key, meta_key = 'cache:' .. id, 'cache_meta:' .. id
  local room = make_room and make_room(limit, policy, key, #value, changed) or 'fits'
  if room == 'again' then
    for _ = i, #ARGV, 4 do
      answers[#answers + 1] = 0
    end
    break
  elseif room == 'full' then
    answers[#answers + 1] = -1
  else
    local alive = redis.call('EXISTS', value_key) == 1
    local previous = redis.call('HMGET', meta_key, 'size_bytes', 'tags')
    local place = place_of(key)
    local start = bucket_at(place)

    -- The first write of all, if nothing had to go: where memory is short it fails, and nothing
    -- has happened yet.
    local score = '+inf'
    if ttl == '' then
      redis.call('SET', value_key, value)
    else
      score = integer(now_ms + ttl)
      redis.call('SET', value_key, value, 'PXAT', score)
      redis.call('ZADD', due, 'LT', score, integer(start))
    end

    if previous[1] and not alive then
      count_loss(redis.call('ZSCORE', name_of(start), key) or '+inf')
    end
    local version = next_version()
    redis.call('HSET', meta_key, 'created_at', now_text, 'size_bytes', integer(#value), 'version', version)
    if not alive then
      redis.call('HSET', meta_key, 'access_count', '0', 'last_accessed', now_text)
    end
    if (previous[2] or '') ~= tags then
      untag(key, previous[2])
      if tags == '' then
        redis.call('HDEL', meta_key, 'tags')
      else
        redis.call('HSET', meta_key, 'tags', tags)
        for tag in string.gmatch(tags, '[^\n]+') do
          redis.call('ZADD', 'cache_tag:' .. ns .. ':' .. tag, integer(place), key)
        end
      end
    end
    books[KEYS_TOTAL] = books[KEYS_TOTAL] + redis.call('ZADD', name_of(start), score, key)
    books[BYTES_TOTAL] = books[BYTES_TOTAL] + #value - tonumber(previous[1] or 0)
    changed[#changed + 1] = key
    answers[#answers + 1] = { alive and 0 or 1, version }
  end
end
if #changed > 0 or made_room > 0 then
  save_books()
  publish(changed)
end
return { answers, made_room }
