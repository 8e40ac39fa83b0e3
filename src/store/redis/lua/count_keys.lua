-- The number of entries that namespaces have together on this shard. ARGV: token, then the namespaces.

local sum = 0
for i = 2, #ARGV do
  local keys = redis.pcall('HGET', 'cache_stats:' .. ARGV[i], 'total_keys')
  sum = sum + (type(keys) == 'string' and tonumber(keys) or 0)
end
return sum
