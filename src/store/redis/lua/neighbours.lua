-- Lists the living instances. ARGV: after how many ms without a heartbeat an instance is dead, the most instances to
-- list. Returns {id, ms since its last heartbeat, its description of itself, ...}.

local living_ms, left = tonumber(ARGV[1]), tonumber(ARGV[2])
local answer = {}
for _, ring in ipairs(redis.call('ZREVRANGE', rings, 0, MAX_RINGS - 1)) do
  local from, to = '(' .. integer(now_ms - living_ms), '(' .. integer(now_ms + living_ms)
  local beats = redis.call('ZREVRANGEBYSCORE', beats_of(ring), to, from, 'WITHSCORES', 'LIMIT', 0, left)
  local ids = {}
  for i = 1, #beats, 2 do
    ids[#ids + 1] = beats[i]
  end
  if #ids > 0 then
    for i, line in ipairs(redis.call('HMGET', lines, unpack(ids))) do
      answer[#answer + 1] = ids[i]
      answer[#answer + 1] = math.max(now_ms - beats[2 * i], 0)
      answer[#answer + 1] = line or ''
    end
  end
  left = left - #ids
end
return answer
