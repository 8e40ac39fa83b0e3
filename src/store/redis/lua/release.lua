-- Ends a lease without a value. ARGV: token, ns, key, lease token, the server's run id according to the record. Returns
-- the number of the change, or 0 if the lease is lost or filled.

local lease_key = 'sidecache:lease:' .. ARGV[2] .. ':' .. ARGV[3]
local text = redis.pcall('GET', lease_key)
local number, rest = string.match(type(text) == 'string' and text or '', '^(%d+):(.*)$')
local issuer = ARGV[4] .. ':' .. ARGV[1] .. ':' .. ARGV[5] .. ':'
if rest and string.sub(rest, 1, #issuer) == issuer then
  local books = redis.pcall('HGET', 'cache_stats:' .. ARGV[2], 'lease_floor')
  local floor, epoch = string.match(type(books) == 'string' and books or '', '^(%d+):(%x+)$')
  local stands = floor and rest == issuer .. epoch and tonumber(number) > tonumber(floor)
  seq = count_change(true)
  if type(seq) == 'table' then
    return seq
  end
  -- Wakes those that wait for the lease.
  redis.call('PUBLISH', CHANNEL, string.format('%d release ', seq) .. ARGV[2] .. '\n' .. ARGV[3])
  redis.call('UNLINK', lease_key)
  return stands and seq or 0
end
return 0
