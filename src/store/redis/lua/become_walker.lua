-- Takes or keeps the right to walk over the shard. ARGV: token, who asks, for how many ms, the key that tells.
-- Returns 1 when it has it. The key has no TTL: Redis must not evict it, nor count it if it did.

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local holder = redis.pcall('HMGET', ARGV[4], 'name', 'until_ms')
if not holder.err and holder[1] and holder[1] ~= ARGV[2] and (tonumber(holder[2] or 0) or 0) > now_ms then
  return 0
end
-- A deletion first, see `removal.lua`: the walk is what frees a Redis that is out of memory.
redis.call('UNLINK', ARGV[4])
redis.call('HSET', ARGV[4], 'name', ARGV[2], 'until_ms', string.format('%d', now_ms + ARGV[3]))
return 1
