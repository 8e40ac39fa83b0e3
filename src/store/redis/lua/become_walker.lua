-- Claims the walk over the shard for an instance, or renews the claim. ARGV: token, the instance, the duration of the
-- claim in ms, the key that stores the claim. Returns 1 if the instance has the claim. The key has no TTL, because
-- Redis may evict keys with a TTL, and such an eviction would look like the eviction of an entry.

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local holder = redis.pcall('HMGET', ARGV[4], 'name', 'until_ms')
if not holder.err and holder[1] and holder[1] ~= ARGV[2] and (tonumber(holder[2] or 0) or 0) > now_ms then
  return 0
end
-- Delete first, see `removal.lua`: in a Redis that is out of memory, the walk is what frees memory.
redis.call('UNLINK', ARGV[4])
redis.call('HSET', ARGV[4], 'name', ARGV[2], 'until_ms', string.format('%d', now_ms + ARGV[3]))
return 1
