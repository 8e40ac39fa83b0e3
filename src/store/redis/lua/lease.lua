-- Reads entries, and gives a lease on each key that has neither an entry nor a lease. ARGV: token, ns, lease in ms, the
-- server's run id according to the record, then key, lease token and version of each: an entry of this version counts as
-- missing, because the reader knows it and does not want it.
-- Returns four fields for each key: as `get.lua` for an entry and for a key that holds another type; for other keys
-- {false, 3, 'won', 'held', or 'none' if no lease can be given; ms until the lease ends}.
--
-- A lease is `sidecache:lease:{ns}:{key}` with the text `number:lease token:fence token:run id`, and Redis removes it
-- at its end. A change of the key removes it earlier. `filled:number:lease token:answer` is a lease whose value is stored.
-- The numbers of a namespace's leases grow. Leases up to the number `lease_floor` are lost: a flush raises the floor
-- because it does not know all keys that a lease may be on. If the totals are lost, so are all leases.

local ENOUGH_BYTES = 1048576

local ns, lease_ms, run_id = ARGV[2], ARGV[3], ARGV[4]
local call, pcall = redis.call, redis.pcall
local stats = 'cache_stats:' .. ns
local answers, bytes, number, known = {}, 0, nil, nil

for i = 5, #ARGV, 3 do
  local id, lease = ns .. ':' .. ARGV[i], ARGV[i + 1]
  local value_key, meta_key, lease_key = 'cache:' .. id, 'cache_meta:' .. id, 'sidecache:lease:' .. id
  local value = pcall('GET', value_key)
  local meta = value and pcall('HMGET', meta_key, 'version', 'created_at', 'expires_at', 'extra')
  local at = #answers
  if value and (value.err or meta.err) then
    local name = value.err and value_key or meta_key
    answers[at + 1], answers[at + 2], answers[at + 3], answers[at + 4] = false, 2, name, call('TYPE', name).ok
  elseif value and meta[1] and meta[1] ~= ARGV[i + 2] then
    answers[at + 1], answers[at + 2], answers[at + 3], answers[at + 4] =
      value, meta[1], meta[2] or '0', remaining_of(value_key, meta[3], meta[4])
    bytes = bytes + #value
    if bytes >= ENOUGH_BYTES then
      -- A script must not block the shard's other clients: the caller asks again for the remaining keys.
      break
    end
  else
    if not number then
      known = pcall('HMGET', stats, 'lease_last', 'lease_floor')
      local time = call('TIME')
      number = time[1] * 1000000 + time[2]
    end
    number = math.max(number, (tonumber(known[1] or '') or 0) + 1)
    local number_text = string.format('%d', number)
    local text = number_text .. ':' .. lease .. ':' .. ARGV[1] .. ':' .. run_id
    -- Without the run id nothing shows that a lease is from this server; without totals nothing can end it.
    local can_give = run_id ~= '' and not known.err
    local is_won = can_give and pcall('SET', lease_key, text, 'NX', 'PX', lease_ms)
    if is_won == false and can_give then
      -- A lease that is lost, or whose value is stored and gone again, holds nobody up.
      local held = pcall('GET', lease_key)
      local held_number, rest = string.match(type(held) == 'string' and held or '', '^(%d+):%x+:(.*)$')
      if rest ~= ARGV[1] .. ':' .. run_id or tonumber(held_number) <= (tonumber(known[2] or '') or number) then
        is_won = pcall('SET', lease_key, text, 'PX', lease_ms)
      end
    end
    if type(is_won) == 'table' and is_won.err then
      if string.find(is_won.err, 'READONLY', 1, true) then
        return is_won
      end
      -- The server accepts no writes at present.
      is_won, can_give = false, false
    end
    if is_won then
      if not known[1] and not known[2] and call('EXISTS', stats) == 0 then
        -- As `record_reads.lua`: the namespace must be found when it has no policy.
        call('SADD', KEYS[1], 'r:' .. ns)
      end
      if known[2] then
        call('HSET', stats, 'lease_last', number_text)
      else
        known[2] = string.format('%d', number - 1)
        call('HSET', stats, 'lease_last', number_text, 'lease_floor', known[2])
      end
      known[1] = number_text
    end
    answers[at + 1], answers[at + 2], answers[at + 3], answers[at + 4] =
      false, 3, is_won and 'won' or can_give and 'held' or 'none', is_won and tonumber(lease_ms) or call('PTTL', lease_key)
  end
end
return answers
