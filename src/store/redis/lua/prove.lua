-- Publishes an instance's clock reading, with the number of the last change, if this server is a primary and the
-- instance's ring record is valid. ARGV: token, the instance's private channel, the reading, the server's run id
-- according to the record ('' to skip this check, which is slow).

-- A primary without its replicas may be cut off from servers that elected another primary, so it proves nothing.
if type(fence) == 'table' and string.find(fence.err, 'NOREPLICAS', 1, true) then
  return fence
end
if redis.call('EXISTS', 'sidecache:ring') == 0 then
  return redis.error_reply('FENCED the record is lost')
end
local last = redis.pcall('GET', 'sidecache:seq')
if type(last) ~= 'string' then
  return redis.error_reply('FENCED the count of changes is lost')
end
if ARGV[4] ~= '' then
  local info = redis.pcall('INFO', 'server')
  local run_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)')
  if run_id and run_id ~= ARGV[4] then
    return redis.error_reply('FENCED the server is another')
  end
  if run_id then
    -- A replica that has this number has every change up to it, see `write_ring.lua`. Without memory it stays behind.
    redis.pcall('HSET', 'sidecache:ring', 'sure', last)
  end
end
redis.call('PUBLISH', ARGV[2], ARGV[1] .. ' ' .. ARGV[3] .. ' ' .. last)
return 1
