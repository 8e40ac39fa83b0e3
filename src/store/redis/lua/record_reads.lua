-- Adds reads to the stats. ARGV: token, then for each namespace its name, hits, misses.
-- Where something of another type stands in place of the books the reads are lost.

-- The fence remembers namespaces that were only read as well, so that what is counted here is found again.
for i = 2, #ARGV, 3 do
  if redis.call('EXISTS', 'cache_stats:' .. ARGV[i]) == 0 then
    redis.call('SADD', KEYS[1], 'r:' .. ARGV[i])
  end
  redis.pcall('HINCRBY', 'cache_stats:' .. ARGV[i], 'hits', ARGV[i + 1])
  redis.pcall('HINCRBY', 'cache_stats:' .. ARGV[i], 'misses', ARGV[i + 2])
end
return 1
