-- Comes after `prelude.lua` in scripts that may fill leases. `lease.lua` has the form of a lease.

-- The state of a lease: 'stands'; 'filled' and the answer of the script that filled it; or 'lost'.
local function state_of_lease(id, lease)
  local text = redis.pcall('GET', 'sidecache:lease:' .. id)
  if type(text) ~= 'string' then
    return 'lost'
  end
  local answer = string.match(text, '^filled:' .. lease .. ':(-?%d+)$')
  if answer then
    return 'filled', tonumber(answer)
  end
  local number, owner, rest = string.match(text, '^(%d+):(%x+):(.*)$')
  local floor = tonumber(known[8] or '')
  if owner ~= lease or not floor or tonumber(number) <= floor then
    return 'lost'
  end
  -- Another server may have a copy of the lease without the change that ended it.
  local info = redis.pcall('INFO', 'server')
  local run_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)')
  return rest == ARGV[1] .. ':' .. (run_id or '?') and 'stands' or 'lost'
end
