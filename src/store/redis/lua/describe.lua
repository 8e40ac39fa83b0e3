-- One entry and all that is known about it. ARGV: ns, key.
-- Returns false, 1 where the value is gone without the books knowing, or {value, version, created_at
-- ms, remaining ms or -1, last_accessed ms, access_count, tags separated by line feeds}.

local id = ARGV[1] .. ':' .. ARGV[2]
local value = redis.call('GET', 'cache:' .. id)
if not value then
  return redis.call('EXISTS', 'cache_meta:' .. id) == 1 and 1
end
local meta = redis.call('HMGET', 'cache_meta:' .. id,
  'version', 'created_at', 'last_accessed', 'access_count', 'tags')
return {
  value, meta[1] or '0', meta[2] or '0', redis.call('PTTL', 'cache:' .. id),
  meta[3] or '0', meta[4] or '0', meta[5] or '',
}
