-- Tries every command and every key prefix that sidecache uses; see `preflight.rs`. ARGV: a channel.
-- Returns {what was tried, the key it was tried on, the error} for each refusal, in one flat list.
--
-- It touches no entry and leaves nothing behind: no namespace can be named `..`, and everything it writes is deleted
-- at the end. It deletes first, because that needs no memory (see `removal.lua`) and shows whether the server accepts
-- writes at all.

local refusals = {}

local function try(command, ...)
  local answer, name = redis.pcall(command, ...), ...
  local refusal = type(answer) == 'table' and answer.err
  if refusal then
    local last = #refusals
    refusals[last + 1], refusals[last + 2], refusals[last + 3] = command, name or '', refusal
  end
  return not refusal
end

local key, other
for _, prefix in ipairs({
  'cache:', 'cache_meta:', 'cache_stats:', 'cache_index:', 'cache_due:', 'cache_tag:', 'cache_tags:', 'sidecache:',
}) do
  local name = prefix .. '..:preflight'
  local may_write = try('UNLINK', name)
  if try('EXISTS', name) and may_write and not key then
    key, other = name, name .. ':2'
  end
end
if not key then
  return refusals
end

try('TIME')
try('DBSIZE')
try('SCAN', '0', 'COUNT', '1')
try('SET', key, '1', 'PX', '1000')
try('GET', key)
try('PTTL', key)
try('PEXPIREAT', key, '9999999999999')
try('PERSIST', key)
try('TYPE', key)
try('DEL', key)
try('INCR', key)
redis.pcall('UNLINK', key)
try('HSET', key, 'a', '1')
try('HGET', key, 'a')
try('HMGET', key, 'a')
try('HEXISTS', key, 'a')
try('HLEN', key)
try('HINCRBY', key, 'a', '1')
try('HDEL', key, 'a')
redis.pcall('UNLINK', key)
try('ZADD', key, '1', 'a')
try('ZCARD', key)
try('ZCOUNT', key, '0', '1')
try('ZSCORE', key, 'a')
try('ZRANGE', key, '0', '0')
try('ZREVRANGE', key, '0', '0')
try('ZRANGEBYSCORE', key, '0', '1')
try('ZREVRANGEBYSCORE', key, '1', '0')
try('ZRANDMEMBER', key, '1')
try('ZREM', key, 'a')
redis.pcall('UNLINK', key)
try('SADD', key, 'a')
try('SISMEMBER', key, 'a')
try('SSCAN', key, '0')
try('SMOVE', key, other, 'a')
try('SREM', other, 'a')
redis.pcall('UNLINK', key, other)
try('PUBLISH', ARGV[1], '')
return refusals
