-- Writes entries, one after the other; a key may stand among them more than once. ARGV: ns, the bytes
-- that its entries may take on this shard (0: any number), its eviction policy, then for each entry key,
-- value, TTL in ms ('' for none), tags separated by line feeds, place.
-- Returns for each entry its version, as a negative number where it replaced another; -1 when there is no
-- room for it; 0 from the first one on that is to be asked for again, as making room is done in bounded
-- steps; an error where something else stands under its name. Behind them how many others went to make room.

local limit, policy = tonumber(ARGV[2]), ARGV[3]
local call, prefix = redis.call, ns .. ':'
local answers, changed = {}, {}
local last_size, size_text
for i = 4, #ARGV, 5 do
  local key, value, ttl, tags = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local id = prefix .. key
  local value_key, meta_key = 'cache:' .. id, 'cache_meta:' .. id
  local previous = redis.pcall('HMGET', meta_key, 'size_bytes', 'tags', 'expires_at')
  local room = not previous.err
  if room and make_room then
    local made_before = made_room
    room = make_room(limit, policy, key, #value, tonumber(previous[1] or 0), changed)
    if made_room ~= made_before then
      -- It may have been among those that had expired.
      previous = call('HMGET', meta_key, 'size_bytes', 'tags', 'expires_at')
    end
  end
  if not room then
    answers[#answers + 1] = previous
  elseif room == 'again' then
    for _ = i, #ARGV, 5 do
      answers[#answers + 1] = 0
    end
    break
  elseif room == 'full' then
    answers[#answers + 1] = -1
  else
    local size = previous[1]
    if #value ~= last_size then
      last_size, size_text = #value, integer(#value)
    end
    local expires, score = '0', '+inf'
    if ttl ~= '' then
      expires = integer(now_ms + ttl)
      score = expires
    end

    -- The first write of all, if nothing had to go: where memory is short it fails, and nothing has
    -- happened yet. The value is most often there if the metadata is, and then one command stores it.
    local condition = size and 'XX' or 'NX'
    local alive = size ~= false
    if ttl == '' then
      if not call('SET', value_key, value, condition) then
        call('SET', value_key, value)
        alive = not alive
      end
    elseif not call('SET', value_key, value, 'PXAT', score, condition) then
      call('SET', value_key, value, 'PXAT', score)
      alive = not alive
    end

    local version = next_version()
    local version_text = integer(version)
    if not alive then
      call('HSET', meta_key, 'created_at', now_text, 'version', version_text, 'size_bytes', size_text,
        'expires_at', expires, 'access_count', '0', 'last_accessed', now_text)
    elseif size == size_text and previous[3] == expires then
      call('HSET', meta_key, 'created_at', now_text, 'version', version_text)
    else
      call('HSET', meta_key, 'created_at', now_text, 'version', version_text, 'size_bytes', size_text,
        'expires_at', expires)
    end

    -- What is alive and was never to expire, and still is not, stands in the index as it should.
    local had_tags = previous[2] or ''
    if not (alive and previous[3] == '0' and expires == '0' and had_tags == tags) then
      local place = ARGV[i + 4]
      local start = bucket_at(tonumber(place))
      local bucket = name_of(start)
      if size and not alive then
        count_loss(call('ZSCORE', bucket, key) or '+inf')
      end
      -- The bucket is noted for the time of the entry that is replaced, or earlier.
      local had = alive and tonumber(previous[3] or 0) or 0
      if ttl ~= '' and (had == 0 or had > now_ms + ttl) then
        call('ZADD', due, 'LT', score, text_of(start))
      end
      books.keys = books.keys + call('ZADD', bucket, score, key)
      if had_tags ~= tags then
        untag(key, had_tags)
        if tags == '' then
          call('HDEL', meta_key, 'tags')
        else
          call('HSET', meta_key, 'tags', tags)
          for tag in string.gmatch(tags, '[^\n]+') do
            call('ZADD', 'cache_tag:' .. ns .. ':' .. tag, place, key)
          end
        end
      end
    end
    books.bytes = books.bytes + #value - (size or 0)
    changed[#changed + 1] = key
    answers[#answers + 1] = alive and -version or version
  end
end
if #changed > 0 or made_room > 0 then
  save_books()
  publish(changed)
end
answers[#answers + 1] = made_room
return answers
