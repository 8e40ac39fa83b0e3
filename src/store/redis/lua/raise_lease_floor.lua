-- Ends all leases of a namespace. ARGV: token, ns. Returns 1.

local stats = 'cache_stats:' .. ARGV[2]
local known = redis.pcall('HMGET', stats, 'lease_last', 'lease_floor')
if known[1] then
  seq = count_change(true)
  if type(seq) == 'table' then
    return seq
  end
  local epoch = string.match(known[2] or '', ':(%x+)$') or '0'
  redis.call('HSET', stats, 'lease_floor', known[1] .. ':' .. epoch)
  -- A message without a key wakes those that wait for any key of the namespace.
  redis.call('PUBLISH', CHANNEL, string.format('%d leases ', seq) .. ARGV[2] .. '\n')
end
return 1
