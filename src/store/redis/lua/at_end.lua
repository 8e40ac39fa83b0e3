  -- The end of the function that `at_begin.lua` begins.
end

-- Returns {the number of the last change, what the script read}. A server that the record does not name may lack
-- changes that were acknowledged, and have counted others: its numbers prove nothing.
local info = redis.pcall('INFO', 'server')
local run_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)')
if run_id and redis.pcall('HGET', 'sidecache:ring', 'run_id') ~= run_id then
  return redis.error_reply('FENCED the server is another')
end
local last = redis.pcall('GET', 'sidecache:seq')
if type(last) ~= 'string' then
  return redis.error_reply('FENCED the count of changes is lost')
end
local found = read()
if type(found) == 'table' and found.err then
  return found
end
return { last, found }
