-- Records a heartbeat of an instance, and removes a bounded number of dead instances. ARGV: its ring, its id, its
-- description of itself, after how many ms without a heartbeat an instance is dead.
-- Returns {ring, how many instances live with it, ...}.

-- The most dead instances of a ring that are removed at a time, about 0.3 ms of work.
local MAX_DEAD = 250

local ring, id, line, living_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local beats = beats_of(ring)

-- A key of another type is not ours and would stop all heartbeats: remove it.
for name, kind in pairs({ [beats] = 'zset', [rings] = 'zset', [lines] = 'hash' }) do
  local found = redis.call('TYPE', name).ok
  if found ~= kind and found ~= 'none' then
    redis.call('UNLINK', name)
  end
end

-- Delete first, see `removal.lua`: heartbeats must also work in a Redis that is out of memory.
redis.call('ZREM', beats, id)
redis.call('ZADD', beats, integer(now_ms), id)
redis.call('ZADD', rings, integer(now_ms), ring)
redis.call('HSET', lines, id, line)

local function forget(beats, from, to)
  local dead = redis.call('ZRANGEBYSCORE', beats, from, to, 'LIMIT', 0, MAX_DEAD)
  if #dead > 0 then
    redis.call('ZREM', beats, unpack(dead))
    redis.call('HDEL', lines, unpack(dead))
  end
end

local answer = {}
-- The rings with the oldest heartbeats first, so that dead rings do not delay the removal of others.
for _, other in ipairs(redis.call('ZRANGE', rings, 0, MAX_RINGS - 1)) do
  local beats = beats_of(other)
  forget(beats, '-inf', integer(now_ms - living_ms))
  -- Heartbeats from the future: the clock has stepped back since. Living instances will send new ones.
  forget(beats, integer(now_ms + living_ms), '+inf')
  local living = redis.call('ZCARD', beats)
  if living == 0 then
    redis.call('ZREM', rings, other)
  else
    answer[#answer + 1] = other
    answer[#answer + 1] = living
  end
end
return answer
