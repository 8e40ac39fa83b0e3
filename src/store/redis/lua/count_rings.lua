-- Which rings instances live with. ARGV: for how many ms a beat counts. Returns {ring, how many live with it, ...}.

local from, to = '(' .. integer(now_ms - ARGV[1]), '(' .. integer(now_ms + ARGV[1])
local answer = {}
for _, ring in ipairs(redis.call('ZREVRANGE', rings, 0, MOST_RINGS - 1)) do
  answer[#answer + 1] = ring
  answer[#answer + 1] = redis.call('ZCOUNT', beats_of(ring), from, to)
end
return answer
