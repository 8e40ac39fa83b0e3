-- Reads entries. ARGV: ns, key...
-- Returns for each key false, or {value, version, created_at ms, remaining ms or -1}: one moment's
-- truth, which three commands could not promise. Once the answer is large, the remaining keys get
-- 0 instead, for "ask again": a script must not keep the shard's other clients waiting.

local ENOUGH_BYTES = 1048576

local answers, evicted, changed, bytes = {}, {}, false, 0
for i = 2, #ARGV do
  local key = ARGV[i]
  local id = ns .. ':' .. key
  local value = bytes < ENOUGH_BYTES and redis.call('GET', 'cache:' .. id)
  if value then
    local meta = redis.call('HMGET', 'cache_meta:' .. id, 'version', 'created_at')
    answers[i - 1] = { value, meta[1] or '0', meta[2] or '0', redis.call('PTTL', 'cache:' .. id) }
    bytes = bytes + #value
  elseif bytes >= ENOUGH_BYTES then
    answers[i - 1] = 0
  else
    -- A plain miss writes nothing.
    if redis.call('ZSCORE', bucket_of(key), key) then
      local _, score = take_out(key)
      changed = true
      if count_loss(score) == EVICTIONS then
        evicted[#evicted + 1] = key
      end
    end
    answers[i - 1] = false
  end
end
if changed then
  save_books()
  publish(evicted)
end
return answers
