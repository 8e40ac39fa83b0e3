-- Removes the stats and tombstones of a namespace that has no keys any more. ARGV: token, ns.

local stats = 'cache_stats:' .. ARGV[2]
local known = redis.pcall('HMGET', stats, 'total_keys', 'repair')
if known.err or ((tonumber(known[1] or 0) or 0) == 0 and not known[2]) then
  redis.call('UNLINK', stats, 'sidecache:tombstones:' .. ARGV[2], 'sidecache:tombstones_due:' .. ARGV[2])
  redis.call('SREM', KEYS[1], 'n:' .. ARGV[2], 'r:' .. ARGV[2])
end
return 1
