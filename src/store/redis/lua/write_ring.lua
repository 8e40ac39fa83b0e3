-- Writes the shard's record of rings, if it is still the one that was read. ARGV: when that was written
-- ('' for none), a moment that is earlier than it will have been written, how far clocks may be apart in us,
-- then names and values of the fields. Returns 1 when it was written, else 0.
--
-- '@' in a value becomes the stamp: no version that the shard has given out is greater. Versions are its
-- clock or, where that stepped back or a replica with another clock took over, go on from the last; so the
-- stamp is as far ahead as clocks may be apart. What is written later under a key that was void has a
-- greater version, see `purge.lua`.

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local record = redis.call('HMGET', 'sidecache:ring', 'written', 'stamp')
if (record[1] or '') ~= ARGV[1] then
  return 0
end
local written = string.format('%d', math.max(now_us, tonumber(record[1] or 0) + 1, tonumber(ARGV[2]) + 1))
local stamp, is_used = tonumber(record[2] or 0), false
local next_stamp = string.format('%d', math.max(now_us, stamp) + ARGV[3])
local fields = {}
for i = 4, #ARGV do
  local count
  fields[i - 3], count = string.gsub(ARGV[i], '@', next_stamp)
  is_used = is_used or count > 0
end
stamp = is_used and next_stamp or string.format('%d', stamp)
-- A deletion first, see `removal.lua`.
redis.call('UNLINK', 'sidecache:ring')
redis.call('HSET', 'sidecache:ring', 'written', written, 'stamp', stamp, unpack(fields))
return 1
