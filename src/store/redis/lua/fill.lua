-- Comes after `prelude.lua` in scripts that may fill leases. `lease.lua` has the form of a lease.

-- The state of a lease: 'stands' and its number; 'filled' and the answer of the script that filled it; or 'lost'.
local function state_of_lease(id, lease)
  local text = redis.pcall('GET', 'sidecache:lease:' .. id)
  if type(text) ~= 'string' then
    return 'lost'
  end
  local floor, epoch = string.match(known[8] or '', '^(%d+):(%x+)$')
  floor = tonumber(floor or '')
  local filled, owner, answer = string.match(text, '^filled:(%d+):(%x+):(-?%d+)$')
  if filled and owner == lease and floor and tonumber(filled) > floor then
    return 'filled', tonumber(answer)
  end
  local number, rest
  number, owner, rest = string.match(text, '^(%d+):(%x+):(.*)$')
  if owner ~= lease or not floor or tonumber(number) <= floor then
    return 'lost'
  end
  -- Another server may have a copy of the lease without the change that ended it.
  local info = redis.pcall('INFO', 'server')
  local run_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)')
  if rest ~= ARGV[1] .. ':' .. (run_id or '?') .. ':' .. epoch then
    return 'lost'
  end
  return 'stands', number
end
