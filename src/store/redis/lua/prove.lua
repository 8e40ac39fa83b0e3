-- Sends an instance's clock reading around, if this is a primary and the record is the one that the instance knows.
-- ARGV: token, the instance's own channel, the reading, the id of the server's run that the record names ('' to take
-- it as given, since asking costs).

-- A primary that misses its replicas may be cut off from those who elected another: it proves nothing.
if type(fence) == 'table' and string.find(fence.err, 'NOREPLICAS', 1, true) then
  return fence
end
if redis.call('EXISTS', 'sidecache:ring') == 0 then
  return redis.error_reply('FENCED the record is lost')
end
if ARGV[4] ~= '' then
  local info = redis.pcall('INFO', 'server')
  local run_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)')
  if run_id and run_id ~= ARGV[4] then
    return redis.error_reply('FENCED the server is another')
  end
end
redis.call('PUBLISH', ARGV[2], ARGV[1] .. ' ' .. ARGV[3])
return 1
