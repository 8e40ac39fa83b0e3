-- Ends all leases of a namespace. ARGV: token, ns. Returns 1.

local stats = 'cache_stats:' .. ARGV[2]
local last = redis.pcall('HGET', stats, 'lease_last')
if type(last) == 'string' then
  -- A deletion first, see `removal.lua`: a flush must work on a server without free memory.
  redis.call('UNLINK', 'sidecache:none')
  redis.call('HSET', stats, 'lease_floor', last)
  -- A message without a key wakes those that wait for any key of the namespace.
  redis.call('PUBLISH', CHANNEL, ARGV[2] .. '\n')
end
return 1
