-- Deletes void entries. ARGV: token, ns, secret, the version up to which they are void ('' for any version), 1 if one
-- of the keys is written next, then key and place of each entry. Returns the deleted keys.
-- A write that follows needs a version above the void versions, until the record is clean and has a new token.

local until_version = tonumber(ARGV[4])
local gone, places, metas = {}, {}, {}
for i = 6, #ARGV, 2 do
  local key = ARGV[i]
  local meta = redis.pcall('HMGET', 'cache_meta:' .. ns .. ':' .. key, 'size_bytes', 'tags', 'version')
  local version = not meta.err and tonumber(meta[3] or '')
  if version and (not until_version or version <= until_version) then
    gone[#gone + 1] = key
    places[#places + 1] = tonumber(ARGV[i + 1])
    metas[#metas + 1] = meta
  end
end
publish('purge', gone)
for i, key in ipairs(gone) do
  local alive, score = take_out(key, metas[i], places[i])
  if not alive and score then
    count_loss(score)
  end
end
-- Give the next write a version that is not void, whatever the clock says.
local is_raised = ARGV[5] == '1' and until_version and books.version < until_version
if is_raised then
  books.version = until_version
end
if #gone > 0 or is_raised or has_new_scope then
  save_books()
end
return gone
