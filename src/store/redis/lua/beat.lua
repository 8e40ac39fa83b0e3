-- Notes that an instance lives, and forgets those that do not any more, a bounded number.
-- ARGV: its ring, its id, what it says of itself, for how many ms a beat counts.
-- Returns {ring, how many live with it, ...}.

-- Dead ones that it forgets of a ring, about 0.3 ms of work.
local MOST_DEAD = 250

local ring, id, line, living_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local beats = beats_of(ring)

-- Of another type it is nothing of ours, and stands in the way of all.
for name, kind in pairs({ [beats] = 'zset', [rings] = 'zset', [lines] = 'hash' }) do
  local found = redis.call('TYPE', name).ok
  if found ~= kind and found ~= 'none' then
    redis.call('UNLINK', name)
  end
end

-- A deletion first, see `removal.lua`: whoever lives is seen in a Redis that is out of memory, too.
redis.call('ZREM', beats, id)
redis.call('ZADD', beats, integer(now_ms), id)
redis.call('ZADD', rings, integer(now_ms), ring)
redis.call('HSET', lines, id, line)

local function forget(beats, from, to)
  local dead = redis.call('ZRANGEBYSCORE', beats, from, to, 'LIMIT', 0, MOST_DEAD)
  if #dead > 0 then
    redis.call('ZREM', beats, unpack(dead))
    redis.call('HDEL', lines, unpack(dead))
  end
end

local answer = {}
-- Those that were heard of longest ago first, so that dead ones cannot keep others from being cleared.
for _, other in ipairs(redis.call('ZRANGE', rings, 0, MOST_RINGS - 1)) do
  local beats = beats_of(other)
  forget(beats, '-inf', integer(now_ms - living_ms))
  -- The clock has stepped back since; who lives will beat again.
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
