-- Stands in front of the scripts about instances that live: names, time.
--
-- A sorted set a ring, id -> last beat in ms, so that counting costs about the same however many there are.
-- No key has a TTL: Redis must not evict them, nor count it if it did.

local lines, rings = 'sidecache:instances', 'sidecache:heartbeats'
local function beats_of(ring)
  return rings .. ':' .. ring
end

-- Rings that one script looks at.
local MOST_RINGS = 16

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local function integer(number)
  return string.format('%d', number)
end
