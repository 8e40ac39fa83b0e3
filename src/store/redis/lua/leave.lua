-- Removes an instance that ends. ARGV: its ring, its id.

local ring, id = ARGV[1], ARGV[2]
redis.call('ZREM', beats_of(ring), id)
redis.call('HDEL', lines, id)
if redis.call('ZCARD', beats_of(ring)) == 0 then
  redis.call('ZREM', rings, ring)
end
return 1
