-- Deletes entries, but for those with a version above `before`: they were written after the flush
-- began. ARGV: ns, before, key... Returns {live entries deleted, the keys that are gone}.

local before = tonumber(ARGV[2])
local deleted, gone = 0, {}
for i = 3, #ARGV do
  local key = ARGV[i]
  local version = redis.call('HGET', 'cache_meta:' .. ns .. ':' .. key, 'version')
  if version and tonumber(version) <= before then
    local alive, score = take_out(key)
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
