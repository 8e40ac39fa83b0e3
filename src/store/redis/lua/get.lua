-- Reads entries. ARGV: ns, key...
-- Returns for each key false, or {value, version, created_at ms, remaining ms or -1}: one moment's
-- truth, which three commands could not promise.

local answers, evicted, changed = {}, {}, false
for i = 2, #ARGV do
  local key = ARGV[i]
  local id = ns .. ':' .. key
  local value = redis.call('GET', 'cache:' .. id)
  if value then
    local meta = redis.call('HMGET', 'cache_meta:' .. id, 'version', 'created_at')
    answers[i - 1] = { value, meta[1] or '0', meta[2] or '0', redis.call('PTTL', 'cache:' .. id) }
  else
    local _, score = take_out(key)
    if score then
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
