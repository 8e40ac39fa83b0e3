-- Reads entries. ARGV: for each 'namespace:key'.
-- Returns for each key false, or {value, version, created_at ms, remaining ms or -1}: one moment's
-- truth, which three commands could not promise. 1 stands for a miss whose value is gone without
-- the books knowing. Once the answer is large, the remaining keys get 0 instead, for "ask again":
-- a script must not keep the shard's other clients waiting.

local ENOUGH_BYTES = 1048576

local answers, bytes = {}, 0
for i = 1, #ARGV do
  local id = ARGV[i]
  if bytes >= ENOUGH_BYTES then
    answers[i] = 0
  else
    local value_key = 'cache:' .. id
    local value = redis.call('GET', value_key)
    if value then
      local meta = redis.call('HMGET', 'cache_meta:' .. id, 'version', 'created_at')
      answers[i] = { value, meta[1] or '0', meta[2] or '0', redis.call('PTTL', value_key) }
      bytes = bytes + #value
    else
      answers[i] = redis.call('EXISTS', 'cache_meta:' .. id) == 1 and 1
    end
  end
end
return answers
