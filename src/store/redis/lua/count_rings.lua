-- Which rings other instances live with. ARGV: for how many ms a beat counts, the id of the instance that asks.
-- Returns {ring, how many live with it, ...}.

local from, to = now_ms - ARGV[1], now_ms + ARGV[1]
local answer = {}
for _, ring in ipairs(redis.call('ZREVRANGE', rings, 0, MOST_RINGS - 1)) do
  local beats = beats_of(ring)
  local living = redis.call('ZCOUNT', beats, '(' .. integer(from), '(' .. integer(to))
  local own = tonumber(redis.call('ZSCORE', beats, ARGV[2]) or 0)
  if own > from and own < to then
    living = living - 1
  end
  answer[#answer + 1] = ring
  answer[#answer + 1] = living
end
return answer
