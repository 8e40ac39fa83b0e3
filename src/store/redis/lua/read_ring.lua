-- The shard's record of rings, see `generations.rs`. ARGV: the names of its fields.
-- Returns {1 if the shard holds more than what instances say of themselves, else 0; when the record was
-- written; the fields}, nothing behind the first where there is no record.

local has_data = redis.call('DBSIZE') > 100
if not has_data then
  local cursor = '0'
  repeat
    local answer = redis.call('SCAN', cursor, 'COUNT', 1000)
    cursor = answer[1]
    for _, key in ipairs(answer[2]) do
      has_data = has_data or string.sub(key, 1, 10) ~= 'sidecache:'
    end
  until cursor == '0'
end
local answer = { has_data and 1 or 0 }
local record = redis.call('HMGET', 'sidecache:ring', 'written', unpack(ARGV))
for i = 1, #record do
  if not record[i] then
    break
  end
  answer[i + 1] = record[i]
end
return answer
