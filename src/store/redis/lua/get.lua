-- Reads entries. ARGV: for each 'namespace:key'.
-- Returns for each four fields, all of one moment: value, version, created_at ms, remaining ms or -1. A miss has
-- false for a value; with 1 for a version its value is gone without the books knowing. Once the answer is large it
-- ends, and the remaining keys are to be asked for again: a script must not keep the shard's other clients waiting.

local ENOUGH_BYTES = 1048576

local call, now_ms = redis.call, nil
local answers, at, bytes = {}, 1, 0
for i = 1, #ARGV do
  local id = ARGV[i]
  local value = call('GET', 'cache:' .. id)
  if value then
    local meta = call('HMGET', 'cache_meta:' .. id, 'version', 'created_at', 'expires_at')
    local expires, remaining = meta[3], -1
    if not expires then
      -- Written before there was such a field.
      remaining = call('PTTL', 'cache:' .. id)
    elseif expires ~= '0' then
      if not now_ms then
        local time = call('TIME')
        now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
      end
      remaining = math.max(expires - now_ms, 0)
    end
    answers[at], answers[at + 1], answers[at + 2], answers[at + 3] = value, meta[1] or '0', meta[2] or '0', remaining
    bytes = bytes + #value
    if bytes >= ENOUGH_BYTES then
      break
    end
  else
    local is_lost = call('EXISTS', 'cache_meta:' .. id)
    answers[at], answers[at + 1], answers[at + 2], answers[at + 3] = false, is_lost, 0, 0
  end
  at = at + 4
end
return answers
