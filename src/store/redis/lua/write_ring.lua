-- Writes the shard's ring record if it is still the one that was read, and updates the token in the fence. ARGV: when
-- that record was written ('' for none), a time that the new one must be later than, how far clocks may differ in us,
-- the format of the stored data, a new incarnation, 1 to use it in any case, the secret for places, then names and
-- values of the fields. Returns {when the record was written, the incarnation, the server's run id}, or 0 if it was
-- not written.
--
-- The incarnation stays as long as the record and the server do. A new incarnation means that all earlier copies are
-- void.
--
-- '@' in a value is replaced by the stamp, which is not less than any version that the shard has issued. Versions
-- follow the clock, or continue from the last version if the clock stepped back or a replica with another clock took
-- over. So the stamp is as far ahead of the clock as clocks may differ. A later write to a key that was void gets a
-- greater version, see `purge.lua`.

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local record = redis.pcall('HMGET', 'sidecache:ring', 'written', 'stamp', 'incarnation', 'run_id', 'token')
if record.err then
  record = {}
end
if (record[1] or '') ~= ARGV[1] then
  return 0
end
local info = redis.pcall('INFO', 'server')
local run_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
local is_fenced = redis.pcall('SISMEMBER', 'sidecache:fence', record[5] or '')
local incarnation = record[3]
if not incarnation or is_fenced ~= 1 or record[4] ~= run_id or ARGV[6] == '1' then
  incarnation = ARGV[5]
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
redis.call('HSET', 'sidecache:ring', 'written', written, 'stamp', stamp, 'token', token, 'form', ARGV[4],
  'incarnation', incarnation, 'place_secret', ARGV[7], 'run_id', run_id, unpack(fields))
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
