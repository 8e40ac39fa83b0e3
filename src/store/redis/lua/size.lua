-- Live keys of a namespace on this shard. ARGV: ns.

return redis.call('ZCOUNT', index, '(' .. integer(now_ms), '+inf')
