-- Gives the right to walk back. ARGV: token, the shard's count of evictions when the walk began.

redis.call('UNLINK', 'sidecache:walker')
redis.call('SET', 'sidecache:walked', ARGV[2])
return 1
