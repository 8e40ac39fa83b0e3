-- Comes first in scripts that describe entries; `get.lua` has the same in its loop.

-- What is left of an entry's freshness: as `get.lua` returns it.
local function remaining_of(value_key, expires_at, extra)
  local remaining = -1
  if not expires_at then
    remaining = redis.call('PTTL', value_key)
  elseif expires_at ~= '0' then
    local time = redis.call('TIME')
    remaining = (tonumber(expires_at) or 0) - (time[1] * 1000 + math.floor(time[2] / 1000))
    if not extra then
      return math.max(remaining, 0)
    end
  end
  return extra and (expires_at == '0' and 'never ' or string.format('%d ', remaining)) .. extra or remaining
end
