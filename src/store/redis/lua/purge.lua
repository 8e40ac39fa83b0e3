-- Deletes entries that are void. ARGV: ns, up to which version they are ('' for any), 1 where one of them
-- is written next, when the record was written that says so, then for each entry its key and place.
-- Returns the keys that are gone, or 0 where the record is another by now: once it is clean, what is
-- written has no need to be above that version.

if redis.call('HGET', 'sidecache:ring', 'written') ~= ARGV[4] then
  return 0
end
local until_version = tonumber(ARGV[2])
local gone = {}
for i = 5, #ARGV, 2 do
  local key = ARGV[i]
  local meta = redis.call('HMGET', 'cache_meta:' .. ns .. ':' .. key, 'size_bytes', 'tags', 'version')
  if meta[3] and (not until_version or tonumber(meta[3]) <= until_version) then
    local alive, score = take_out(key, meta, tonumber(ARGV[i + 1]))
    if not alive and score then
      count_loss(score)
    end
    gone[#gone + 1] = key
  end
end
-- What is written next is void no more, whatever the clock says.
local is_raised = ARGV[3] == '1' and until_version and books.version < until_version
if is_raised then
  books.version = until_version
end
if #gone > 0 or is_raised then
  save_books()
  publish(gone)
end
return gone
