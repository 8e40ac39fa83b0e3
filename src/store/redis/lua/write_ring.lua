-- Writes the shard's ring record if it is still the one that was read, and updates the token in the fence. ARGV: when
-- that record was written ('' for none), a time that the new one must be later than, how far clocks may differ in us,
-- the format of the stored data, a new incarnation, 1 to use it in any case, the secret for places, then names and
-- values of the fields. Returns {when the record was written, the incarnation, the server's run id}, or 0 if it was
-- not written.
--
-- The incarnation stays as long as the record, the server and the count of changes do. A new incarnation means that all
-- earlier copies are void.
--
-- `earlier` is a list of the latest incarnations before this one, as 'incarnation:number'. The data has every change of
-- that incarnation up to this number. The number comes from `sure`, the last number that is known to be of the server
-- that the record names (`prove.lua`): after a failover, instances may count a few changes on the new server before
-- they notice it, while the last changes of the old server are lost.
--
-- '@' in a value is replaced by the stamp, which is not less than any version that the shard has issued. Versions
-- follow the clock, or continue from the last version if the clock stepped back or a replica with another clock took
-- over. So the stamp is as far ahead of the clock as clocks may differ. A later write to a key that was void gets a
-- greater version, see `purge.lua`.

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local record = redis.pcall('HMGET', 'sidecache:ring', 'written', 'stamp', 'incarnation', 'run_id', 'token',
  'earlier', 'sure')
if record.err then
  record = {}
end
if (record[1] or '') ~= ARGV[1] then
  return 0
end
local info = redis.pcall('INFO', 'server')
local run_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
local is_fenced = redis.pcall('SISMEMBER', 'sidecache:fence', record[5] or '')
local count = redis.pcall('GET', 'sidecache:seq')
local has_count = type(count) == 'string' and (tonumber(count) or 0) > 0
if not has_count then
  count = '1'
end
local incarnation, earlier, sure = record[3], record[6] or '', record[7] or '0'
if not incarnation or is_fenced ~= 1 or record[4] ~= run_id or ARGV[6] == '1' or not has_count then
  if incarnation then
    if has_count and record[4] == run_id and run_id ~= '' then
      sure = count
    end
    earlier = incarnation .. ':' .. sure .. ' ' .. earlier
    -- At most 16 of them.
    earlier = string.match(earlier, '^' .. string.rep('%S+ ', 16)) or earlier
  end
  incarnation, sure = ARGV[5], count
end
if ARGV[4] == 'emptying' or is_fenced ~= 1 then
  -- Data is gone, or will be.
  earlier = ''
end
local written = string.format('%d', math.max(now_us, tonumber(record[1] or 0) + 1, tonumber(ARGV[2]) + 1))
local stamp, is_used = tonumber(record[2] or 0), false
local next_stamp = string.format('%d', math.max(now_us, stamp) + ARGV[3])
local fields = {}
for i = 8, #ARGV do
  local count
  fields[i - 7], count = string.gsub(ARGV[i], '@', next_stamp)
  is_used = is_used or count > 0
end
stamp = is_used and next_stamp or string.format('%d', stamp)
local token = incarnation .. '.' .. written
-- Delete first, see `removal.lua`.
redis.call('UNLINK', 'sidecache:ring')
if not has_count then
  redis.call('UNLINK', 'sidecache:seq')
  redis.call('SET', 'sidecache:seq', count)
end
redis.call('HSET', 'sidecache:ring', 'written', written, 'stamp', stamp, 'token', token, 'form', ARGV[4],
  'incarnation', incarnation, 'place_secret', ARGV[7], 'run_id', run_id,
  'earlier', earlier, 'sure', sure, unpack(fields))
if type(is_fenced) == 'table' then
  redis.call('UNLINK', 'sidecache:fence')
else
  -- Without a record its token is unknown, so all tokens are removed.
  local tokens, cursor = { record[5] or nil }, '0'
  repeat
    local step = not record[5] and redis.call('SSCAN', 'sidecache:fence', cursor, 'COUNT', 1000) or { '0', {} }
    cursor = step[1]
    for _, token in ipairs(step[2]) do
      local kind = string.sub(token, 1, 2)
      if kind ~= 'n:' and kind ~= 'r:' then
        tokens[#tokens + 1] = token
      end
    end
  until cursor == '0'
  for _, token in ipairs(tokens) do
    redis.call('SREM', 'sidecache:fence', token)
  end
end
redis.call('SADD', 'sidecache:fence', token)
return { written, incarnation, run_id }
