-- The numbers of a namespace on this shard. ARGV: ns.
-- Returns {hits, misses, total_keys, total_bytes, evictions, expirations, charged_bytes}.

local fields = redis.call('HMGET', 'cache_stats:' .. ARGV[1],
  'hits', 'misses', 'total_keys', 'total_bytes', 'evictions', 'expirations', 'charged_bytes')
for i = 1, 7 do
  fields[i] = tonumber(fields[i] or 0)
end
return fields
