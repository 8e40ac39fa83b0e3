-- Records that an instance lives, before it is known whether it may serve. ARGV: its ring, its id.

redis.call('ZADD', beats_of(ARGV[1]), integer(now_ms), ARGV[2])
redis.call('ZADD', rings, integer(now_ms), ARGV[1])
return 1
