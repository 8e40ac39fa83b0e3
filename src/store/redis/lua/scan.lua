-- One step over the names of all Redis keys. ARGV: token, the cursor, a pattern, about how many keys to look at.
-- Returns {the next cursor, the names}. It is fenced because a cursor is only valid on the server that gave it.

return redis.call('SCAN', ARGV[2], 'MATCH', ARGV[3], 'COUNT', ARGV[4])
