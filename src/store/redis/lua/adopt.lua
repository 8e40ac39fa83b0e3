-- Puts entries into the index that are in none, and removes what is left of others. ARGV: token, ns, secret, then for
-- each entry its key and place. Returns how many were put in.

local adopted, removed = 0, {}
for i = 4, #ARGV, 2 do
  local key, place = ARGV[i], tonumber(ARGV[i + 1])
  local id = ns .. ':' .. key
  local meta = redis.pcall('HMGET', 'cache_meta:' .. id, 'size_bytes', 'tags', 'version', 'expires_at')
  local found = redis.call('TYPE', 'cache:' .. id).ok
  if meta.err or (found ~= 'string' and found ~= 'none') then
    -- Not ours: a DELETE of the key removes it.
  elseif not meta[3] or found == 'none' then
    local expires = meta[4]
    if redis.call('UNLINK', 'cache:' .. id, 'cache_meta:' .. id) > 0 then
      removed[#removed + 1] = key
    end
    if meta[3] then
      count_loss(expires == '0' and '+inf' or expires or '+inf')
    end
  elseif books.buckets == 0 or not redis.call('ZSCORE', name_of(bucket_at(place)), key) then
    local expires, tags, size = meta[4] or '0', meta[2] or '', tonumber(meta[1] or 0) or 0
    local score = expires == '0' and '+inf' or expires
    local added, why_not = put_in_index(place, score, key, expires ~= '0' and score, score)
    if why_not and why_not.err then
      return why_not
    elseif added == 1 then
      adopted = adopted + 1
      books.keys = books.keys + 1
      books.bytes = books.bytes + size
      books.charged = books.charged + charge_of(key, tags, size)
      for tag in string.gmatch(tags, '[^\n]+') do
        if redis.pcall('ZADD', tag_set(tag), ARGV[i + 1], key) == 1 then
          count_tagged(tag, 1)
        end
      end
    end
  end
end
save_books()
-- Copies of what had no metadata any more would outlive it.
publish(removed)
return adopted
