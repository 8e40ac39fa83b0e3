-- Stands first in every script that writes: the fence.
--
-- KEYS[1] is the set `sidecache:fence`, ARGV[1] the token that the caller believes in (see `adoption.rs`). A shard
-- with another token refuses the script before it changes anything. That the server is a primary is told by its
-- first write: a replica answers READONLY.

if redis.pcall('SISMEMBER', KEYS[1], ARGV[1]) ~= 1 then
  return redis.error_reply('FENCED another record holds')
end
