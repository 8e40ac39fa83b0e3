-- Adds reads to the stats. ARGV: for each namespace its name, hits, misses.

for i = 1, #ARGV, 3 do
  redis.call('HINCRBY', 'cache_stats:' .. ARGV[i], 'hits', ARGV[i + 1])
  redis.call('HINCRBY', 'cache_stats:' .. ARGV[i], 'misses', ARGV[i + 2])
end
return 1
