-- Removes the stats of a namespace that holds no keys any more. ARGV: ns.

local stats = 'cache_stats:' .. ARGV[1]
if tonumber(redis.call('HGET', stats, 'total_keys') or 0) == 0 then
  redis.call('DEL', stats)
end
return 1
