-- The totals of a namespace on this shard. ARGV: token, ns.
-- Returns {hits, misses, total_keys, total_bytes, charged_bytes, evictions, how many of these evictions had a lack of
-- server memory as the reason, expirations, about how many entries have expired but are still counted, 1 during a
-- repair}, or {name, type} if the key of the totals holds another type.

local stats = 'cache_stats:' .. ARGV[2]
local fields = redis.pcall('HMGET', stats, 'hits', 'misses', 'total_keys', 'total_bytes', 'charged_bytes',
  'evictions', 'redis_evictions', 'expirations', 'buckets', 'scope', 'repair')
if fields.err then
  return { stats, redis.call('TYPE', stats).ok }
end
local answer = {}
for i = 1, 8 do
  answer[i] = tonumber(fields[i] or 0) or 0
end
local time = redis.call('TIME')
local due = redis.pcall('ZCOUNT', 'cache_due:' .. ARGV[2] .. (fields[10] or ''), '-inf', time[1] * 1000)
local buckets = tonumber(fields[9] or 0) or 0
answer[9] = type(due) == 'number' and buckets > 0 and math.floor(answer[3] * due / buckets) or 0
answer[10] = fields[11] and 1 or 0
return answer
