-- Removes entries from index and totals if their value or metadata is gone: expired, or evicted by Redis.
-- ARGV: token, ns, secret, then the keys. Returns how many were removed.

local evicted = {}
local count = 0
for i = 4, #ARGV do
  local key = ARGV[i]
  local id = ns .. ':' .. key
  local meta = redis.pcall('HMGET', 'cache_meta:' .. id, 'size_bytes', 'tags', 'version')
  -- It may have been written again meanwhile.
  if not meta.err and not (meta[3] and redis.call('EXISTS', 'cache:' .. id) == 1) then
    local _, score = take_out(key, meta)
    count = count + 1
    if (score and count_loss(score) == 'evictions') or not meta[3] then
      evicted[#evicted + 1] = key
    end
  end
end
if count > 0 or has_new_scope then
  save_books()
  publish('evict', evicted)
end
return count
