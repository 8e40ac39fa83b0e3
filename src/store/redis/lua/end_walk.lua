-- Gives the right to walk back. ARGV: the shard's count of evictions when the walk began.

redis.call('UNLINK', 'sidecache:walker')
redis.call('SET', 'sidecache:walked', ARGV[1])
return 1
