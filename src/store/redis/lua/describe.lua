-- Reads one entry with all of its metadata. ARGV: token, ns, key.
-- Returns false if there is none; 1 if its value or metadata is gone but index and totals still count it; {name,
-- type} if one of its keys holds another type; else {value, version, created_at ms, what remains of its freshness as in
-- `get.lua`, last_accessed ms, access_count, tags separated by line feeds, source version or ''}.

local id = ARGV[2] .. ':' .. ARGV[3]
local value_key, meta_key = 'cache:' .. id, 'cache_meta:' .. id
local value = redis.pcall('GET', value_key)
local meta = redis.pcall('HMGET', meta_key, 'version', 'created_at', 'last_accessed', 'access_count', 'tags', 'expires_at',
  'extra', 'source_version')
if value and value.err then
  return { value_key, redis.call('TYPE', value_key).ok }
elseif meta.err then
  return { meta_key, redis.call('TYPE', meta_key).ok }
elseif not value and not meta[1] then
  return false
elseif not value or not meta[1] then
  return 1
end
return {
  value, meta[1], meta[2] or '0', remaining_of(value_key, meta[6], meta[7]),
  meta[3] or '0', meta[4] or '0', meta[5] or '', meta[8] or '',
}
