-- The rings of the other living instances. ARGV: after how many ms without a heartbeat an instance is dead, the id of
-- the calling instance. Returns {ring, how many other instances live with it, ...}.

local from, to = now_ms - ARGV[1], now_ms + ARGV[1]
local answer = {}
for _, ring in ipairs(redis.call('ZREVRANGE', rings, 0, MAX_RINGS - 1)) do
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
