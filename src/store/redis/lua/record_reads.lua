-- Adds hits and misses to the stats. ARGV: token, then name, hits and misses of each namespace.
-- If the key of the stats holds another type, the counts are lost.

-- The fence also holds namespaces that were only read, so that their counts can be found later.
for i = 2, #ARGV, 3 do
  if redis.call('EXISTS', 'cache_stats:' .. ARGV[i]) == 0 then
    redis.call('SADD', KEYS[1], 'r:' .. ARGV[i])
  end
  redis.pcall('HINCRBY', 'cache_stats:' .. ARGV[i], 'hits', ARGV[i + 1])
  redis.pcall('HINCRBY', 'cache_stats:' .. ARGV[i], 'misses', ARGV[i + 2])
end
return 1
