-- The fence: the first part of every script that only reads.
--
-- KEYS[1] is the set `sidecache:fence`, ARGV[1] is the caller's token (see `ring_keeper.rs`). Moving a member from a
-- set to the same set changes nothing, returns whether the member is there, and counts as a write in Redis
-- (https://redis.io/docs/latest/commands/smove/). So one command checks both the token and that the server is a
-- primary: a replica answers READONLY.

local fence = redis.pcall('SMOVE', KEYS[1], KEYS[1], ARGV[1])
if fence ~= 1 then
  local refusal = type(fence) == 'table' and fence.err or ''
  if string.find(refusal, 'READONLY', 1, true) then
    return redis.error_reply('READONLY this server is a replica')
  end
  -- A primary that accepts no writes at present (MISCONF, NOREPLICAS) still answers reads.
  if redis.pcall('SISMEMBER', KEYS[1], ARGV[1]) ~= 1 then
    return redis.error_reply('FENCED another record holds')
  end
end
