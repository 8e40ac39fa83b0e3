-- Adds entries to the index that are missing from it, and removes what is left of incomplete entries. ARGV: token,
-- ns, secret, then key and place of each entry. Returns how many were added.

-- Delete first, so that a lack of memory cannot stop the script half way, see `removal.lua`.
redis.call('UNLINK', 'sidecache:none')
local adopted, removed = 0, {}
for i = 4, #ARGV, 2 do
  local key, place = ARGV[i], tonumber(ARGV[i + 1])
  local id = ns .. ':' .. key
  local meta = redis.pcall('HMGET', 'cache_meta:' .. id, 'size_bytes', 'tags', 'version', 'expires_at', 'extra')
  local found = redis.call('TYPE', 'cache:' .. id).ok
  local known = books.buckets > 0 and redis.pcall('ZSCORE', name_of(bucket_at(place)), key)
  if meta.err or (found ~= 'string' and found ~= 'none') then
    -- The key holds another type: leave it; a DELETE of the entry removes it.
  elseif not meta[3] or found == 'none' then
    local expires = goes_at(meta[4], meta[5])
    take_out(key, meta, place)
    if meta[3] then
      count_loss(expires == '0' and '+inf' or expires or '+inf')
    end
    removed[#removed + 1] = key
  elseif not known then
    local expires, tags, size = goes_at(meta[4], meta[5]) or '0', meta[2] or '', tonumber(meta[1] or 0) or 0
    local score = expires == '0' and '+inf' or expires
    local added = put_in_index(place, score, key, expires ~= '0' and score, score)
    if added == 1 then
      adopted = adopted + 1
      books.keys = books.keys + 1
      books.bytes = books.bytes + size
      books.charged = books.charged + charge_of(key, tags, size)
      tag_entry(key, tags, ARGV[i + 1])
    elseif not added then
      is_lost = true
    end
  elseif type(known) == 'table' then
    is_lost = true
  end
end
save_books()
-- These entries are gone, so copies of them are void.
publish('evict', removed)
return adopted
