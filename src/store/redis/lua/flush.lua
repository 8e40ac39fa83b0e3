-- Deletes entries, but for those with a version above `before`: they were written after the flush
-- began. ARGV: ns, before, then for each entry its key and place. Returns {live entries deleted, the
-- keys that are gone}.

local before = tonumber(ARGV[2])
local deleted, gone = 0, {}
for i = 3, #ARGV, 2 do
  local key = ARGV[i]
  local meta = redis.call('HMGET', 'cache_meta:' .. ns .. ':' .. key, 'size_bytes', 'tags', 'version')
  if meta[3] and tonumber(meta[3]) <= before then
    local alive, score = take_out(key, meta, tonumber(ARGV[i + 1]))
    if alive then
      deleted = deleted + 1
    elseif score then
      count_loss(score)
    end
    gone[#gone + 1] = key
  end
end
if #gone > 0 then
  save_books()
  publish(gone)
end
return { deleted, gone }
