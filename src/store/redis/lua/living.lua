-- The first part of the scripts about living instances: names and time.
--
-- There is one sorted set per ring, id -> last heartbeat in ms, so that counting costs about the same however many
-- instances there are. The keys have no TTL, because Redis may evict keys with a TTL, and such an eviction would look
-- like the eviction of an entry.

local lines, rings = 'sidecache:instances', 'sidecache:heartbeats'
local function beats_of(ring)
  return rings .. ':' .. ring
end

-- The most rings that one script looks at.
local MAX_RINGS = 16

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local function integer(number)
  return string.format('%d', number)
end
