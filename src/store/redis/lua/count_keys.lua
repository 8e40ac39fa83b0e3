-- How many entries namespaces have together on this shard. ARGV: the namespaces.

local sum = 0
for i = 1, #ARGV do
  sum = sum + (redis.call('HGET', 'cache_stats:' .. ARGV[i], 'total_keys') or 0)
end
return sum
