-- The fence: the first part of every script that writes.
--
-- KEYS[1] is the set `sidecache:fence`, ARGV[1] is the caller's token (see `ring_keeper.rs`). A shard with another
-- token refuses the script before it changes anything. The first write of the script shows whether the server is a
-- primary: a replica answers READONLY.

if redis.pcall('SISMEMBER', KEYS[1], ARGV[1]) ~= 1 then
  return redis.error_reply('FENCED another record holds')
end
