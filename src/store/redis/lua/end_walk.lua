-- Releases the claim to the walk. ARGV: token, the shard's count of evictions when the walk began.

redis.call('UNLINK', 'sidecache:walker')
redis.call('SET', 'sidecache:walked', ARGV[2])
return 1
