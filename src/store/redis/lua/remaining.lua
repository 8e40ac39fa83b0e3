-- Comes first in scripts that describe entries; `get.lua` has the same in its loop.

local now_ms
-- The time of the shard in ms.
local function now()
  if not now_ms then
    local time = redis.call('TIME')
    now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return now_ms
end

-- What is left of an entry's freshness, in the form of `get.lua`.
local function remaining_of(value_key, expires_at, extra)
  local remaining = -1
  if not expires_at then
    remaining = redis.call('PTTL', value_key)
  elseif expires_at ~= '0' then
    remaining = (tonumber(expires_at) or 0) - now()
    if not extra then
      return math.max(remaining, 0)
    end
  end
  return extra and (expires_at == '0' and 'never ' or string.format('%d ', remaining)) .. extra or remaining
end
