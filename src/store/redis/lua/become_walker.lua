-- Takes or keeps the right to walk over the shard. ARGV: who asks, for how many ms, the key that tells.
-- Returns 1 when it has it. The key has no TTL: Redis must not evict it, nor count it if it did.

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local holder = redis.call('HMGET', ARGV[3], 'name', 'until_ms')
if holder[1] and holder[1] ~= ARGV[1] and tonumber(holder[2]) > now_ms then
  return 0
end
-- A deletion first, see `removal.lua`: the walk is what frees a Redis that is out of memory.
redis.call('UNLINK', ARGV[3])
redis.call('HSET', ARGV[3], 'name', ARGV[1], 'until_ms', string.format('%d', now_ms + ARGV[2]))
return 1
