-- Reads the shard's ring record, see `generations.rs`. ARGV: the names of its fields.
-- Returns {1 if the shard holds keys other than `sidecache:*`, else 0; the server's run id, '' if INFO is forbidden;
-- 1 if the fence holds the record's token, 2 if there is also a count of changes; when the record was written; the
-- format of the stored data; the incarnation; the secret for places; the run id of the server that wrote the record;
-- the earlier incarnations, see `write_ring.lua`; the fields}. Without a record, only the first three.

-- The most keys that are checked on a small shard.
local MAX_KEYS = 1000

local size = redis.pcall('DBSIZE')
local has_data = type(size) ~= 'number' or size > 100
if not has_data then
  local cursor, looked = '0', 0
  repeat
    local step = redis.call('SCAN', cursor, 'COUNT', 200)
    cursor, looked = step[1], looked + 200
    for _, key in ipairs(step[2]) do
      has_data = has_data or string.sub(key, 1, 10) ~= 'sidecache:'
    end
  until cursor == '0' or has_data or looked >= MAX_KEYS
end
local info = redis.pcall('INFO', 'server')
local run_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
local record = redis.pcall('HMGET', 'sidecache:ring', 'written', 'token', 'form', 'incarnation', 'place_secret', 'run_id',
  'earlier', unpack(ARGV))
if record.err or not record[1] then
  return { has_data and 1 or 0, run_id, 0 }
end
local is_fenced = redis.pcall('SISMEMBER', 'sidecache:fence', record[2] or '') == 1
local has_count = type(redis.pcall('GET', 'sidecache:seq')) == 'string'
local answer = {
  has_data and 1 or 0, run_id, is_fenced and (has_count and 2 or 1) or 0, record[1], record[3] or '', record[4] or '',
  record[5] or '', record[6] or '', record[7] or '',
}
for i = 8, #record do
  answer[i + 2] = record[i] or ''
end
return answer
