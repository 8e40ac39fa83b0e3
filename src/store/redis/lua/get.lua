-- Reads entries. ARGV: token, then 'namespace:key' of each entry.
-- Returns four fields for each entry, all read at the same moment: value, version, created_at ms, the remaining ms of
-- its freshness or -1 for ever. If the metadata has `extra`, the last field is a text: the remaining ms, negative after
-- the end of the freshness, or `never`, then a space and `extra`.
-- For a miss the value is false, and the version is 0; or 1 if value or metadata is gone but index and totals still
-- count the entry; or 2 if one of its keys holds another type, followed by the key's name and type. The script stops
-- once its answer is large, and the caller must ask again for the remaining keys: a script must not block the shard's
-- other clients.

local ENOUGH_BYTES = 1048576

local call, pcall, now_ms = redis.call, redis.pcall, nil
local answers, at, bytes = {}, 1, 0
for i = 2, #ARGV do
  local id = ARGV[i]
  local value_key, meta_key = 'cache:' .. id, 'cache_meta:' .. id
  local value = pcall('GET', value_key)
  local meta = value and pcall('HMGET', meta_key, 'version', 'created_at', 'expires_at', 'extra')
  if value and meta[1] and not value.err then
    local expires, remaining = meta[3], -1
    if not expires then
      remaining = call('PTTL', value_key)
    elseif expires ~= '0' then
      if not now_ms then
        local time = call('TIME')
        now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
      end
      remaining = (tonumber(expires) or now_ms) - now_ms
    end
    if meta[4] then
      remaining = (expires == '0' and 'never ' or string.format('%d ', remaining)) .. meta[4]
    elseif remaining < 0 and expires and expires ~= '0' then
      remaining = 0
    end
    answers[at], answers[at + 1], answers[at + 2], answers[at + 3] = value, meta[1], meta[2] or '0', remaining
    bytes = bytes + #value
    if bytes >= ENOUGH_BYTES then
      break
    end
  elseif value and (value.err or meta.err) then
    local name = value.err and value_key or meta_key
    answers[at], answers[at + 1], answers[at + 2], answers[at + 3] = false, 2, name, call('TYPE', name).ok
  else
    local found = call('TYPE', meta_key).ok
    local state = (value or found == 'hash') and 1 or found == 'none' and 0 or 2
    answers[at], answers[at + 1], answers[at + 2], answers[at + 3] = false, state, meta_key, found
  end
  at = at + 4
end
return answers
