-- One step over the names of the shard's keys. ARGV: token, the cursor, a pattern, about how many to look at.
-- Returns {the cursor to go on from, the names}. Behind the fence, as a cursor means nothing to another server.

return redis.call('SCAN', ARGV[2], 'MATCH', ARGV[3], 'COUNT', ARGV[4])
