-- Reads entries, and gives a lease on each key without a lease that has no entry, or one that counts as missing or
-- should be refreshed. ARGV: token, ns, lease in ms, the server's run id according to the record, then for each key:
-- the key, a lease token, the version of an entry that counts as missing because the reader knows it and does not
-- want it, and the thousandths of its TTL after which an entry should be refreshed (1000: when its freshness ends;
-- '': never).
-- Returns six fields for each key. The first four are as in `get.lua` for an entry and for a key that holds another
-- type; {false, 1, '', ''} if value or metadata is gone but index and totals still count the entry; else
-- {false, 3, '', ''}. An entry that is kept only in place of errors is returned, but counts as missing. The other two
-- are the state of the lease: 'won', 'held', or 'none' if no lease can be given, and the ms until it ends; 'early' and
-- the ms until the entry should be refreshed; or '' and 0.
--
-- A lease is `sidecache:lease:{ns}:{key}` with the text `number:lease token:fence token:run id:epoch`, and Redis
-- removes it at its end. A change of the key removes it earlier. `filled:number:lease token:answer` is a lease whose
-- value is stored. The numbers of a namespace's leases grow. The field `lease_floor` is `number:epoch`: leases up to
-- this number are lost, because a flush raises it without knowing all keys that a lease may be on; and leases of
-- another epoch are lost, because a new epoch begins when the totals were lost.

local ENOUGH_BYTES = 1048576

local ns, lease_ms, run_id = ARGV[2], ARGV[3], ARGV[4]
local call, pcall = redis.call, redis.pcall
local stats = 'cache_stats:' .. ns
local answers, bytes, number, known, replica = {}, 0, nil, nil, nil
local floor, epoch

-- Gives a lease, unless another caller has it. Returns its state and the ms until it ends.
local function give(lease_key, lease)
  if not number then
    known = pcall('HMGET', stats, 'lease_last', 'lease_floor')
    floor, epoch = string.match(known[2] or '', '^(%d+):(%x+)$')
    -- A part of a token is random.
    epoch = epoch or string.sub(lease, 1, 8)
    local time = call('TIME')
    number = time[1] * 1000000 + time[2]
  end
  number = math.max(number, (tonumber(known[1] or '') or 0) + 1)
  local number_text = string.format('%d', number)
  local issuer = ARGV[1] .. ':' .. run_id .. ':' .. epoch
  local text = number_text .. ':' .. lease .. ':' .. issuer
  -- Without the run id nothing shows that a lease is from this server; without totals nothing can end it.
  local can_give = run_id ~= '' and not known.err
  local is_won = can_give and pcall('SET', lease_key, text, 'NX', 'PX', lease_ms)
  if is_won == false and can_give then
    -- A lease that is lost, or whose value is stored, holds nobody up.
    local held = pcall('GET', lease_key)
    local held_number, rest = string.match(type(held) == 'string' and held or '', '^(%d+):%x+:(.*)$')
    if rest ~= issuer or not floor or tonumber(held_number) <= tonumber(floor) then
      is_won = pcall('SET', lease_key, text, 'PX', lease_ms)
    end
  end
  if type(is_won) == 'table' and is_won.err then
    if string.find(is_won.err, 'READONLY', 1, true) then
      replica = is_won
    end
    -- The server accepts no writes at present.
    return 'none', 0
  elseif not is_won then
    return can_give and 'held' or 'none', call('PTTL', lease_key)
  end
  if not known[1] and not floor and call('EXISTS', stats) == 0 then
    -- As `record_reads.lua`: the namespace must be found when it has no policy.
    call('SADD', KEYS[1], 'r:' .. ns)
  end
  if floor then
    call('HSET', stats, 'lease_last', number_text)
  else
    floor = string.format('%d', number - 1)
    call('HSET', stats, 'lease_last', number_text, 'lease_floor', floor .. ':' .. epoch)
  end
  known[1] = number_text
  return 'won', tonumber(lease_ms)
end

-- The time in ms at which an entry should be refreshed; nil for never.
local function refresh_at(created_at, expires_at, refresh_after)
  local expires, created = tonumber(expires_at or '0') or 0, tonumber(created_at or '0') or 0
  if refresh_after == '' or expires == 0 then
    return nil
  end
  return created + math.floor(math.max(expires - created, 0) * refresh_after / 1000)
end

for i = 5, #ARGV, 4 do
  local id, lease = ns .. ':' .. ARGV[i], ARGV[i + 1]
  local value_key, meta_key, lease_key = 'cache:' .. id, 'cache_meta:' .. id, 'sidecache:lease:' .. id
  local value = pcall('GET', value_key)
  local meta = value and pcall('HMGET', meta_key, 'version', 'created_at', 'expires_at', 'extra')
  local entry, state, left = nil, '', 0
  if value and (value.err or meta.err) then
    local name = value.err and value_key or meta_key
    entry = { false, 2, name, call('TYPE', name).ok }
  elseif value and meta[1] and meta[1] ~= ARGV[i + 2] then
    entry = { value, meta[1], meta[2] or '0', remaining_of(value_key, meta[3], meta[4]) }
    local is_for_errors = meta[4] and string.find(' ' .. meta[4] .. ' ', ' m0 ', 1, true)
    local at = is_for_errors and 0 or refresh_at(meta[2], meta[3], ARGV[i + 3])
    if at and at <= now() then
      state, left = give(lease_key, lease)
    elseif at then
      state, left = 'early', at - now()
    end
  else
    local found = not (value and meta[1]) and call('TYPE', meta_key).ok
    if not value and found ~= 'hash' and found ~= 'none' then
      entry = { false, 2, meta_key, found }
    else
      entry = { false, (found and value or found == 'hash') and 1 or 3, '', '' }
      state, left = give(lease_key, lease)
    end
  end
  if replica then
    return replica
  end
  local last = #answers
  for field = 1, 4 do
    answers[last + field] = entry[field]
  end
  answers[last + 5], answers[last + 6] = state, left
  bytes = bytes + (entry[1] and #value or 0)
  if bytes >= ENOUGH_BYTES then
    -- A script must not block the shard's other clients: the caller asks again for the remaining keys.
    break
  end
end
return answers
