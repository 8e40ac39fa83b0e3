-- Adds reads to the stats. ARGV: token, then for each namespace its name, hits, misses.
-- Where something of another type stands in place of the books the reads are lost.

for i = 2, #ARGV, 3 do
  redis.pcall('HINCRBY', 'cache_stats:' .. ARGV[i], 'hits', ARGV[i + 1])
  redis.pcall('HINCRBY', 'cache_stats:' .. ARGV[i], 'misses', ARGV[i + 2])
end
return 1
