-- Removes our entries and their bookkeeping. ARGV: when the record was written that marks the shard as being emptied,
-- then names of Redis keys. Keys of other programs under such names do not have our format, and stay. Returns how
-- many keys were removed, or -1 if the shard has another record now.

local record = redis.pcall('HMGET', 'sidecache:ring', 'written', 'form')
if record.err or record[1] ~= ARGV[1] or record[2] ~= 'emptying' then
  return -1
end
local kinds = {
  ['cache_stats'] = 'hash', ['cache_index'] = 'zset', ['cache_due'] = 'zset', ['cache_tag'] = 'zset', ['cache_tags'] = 'hash',
}
local gone = 0
for i = 2, #ARGV do
  local prefix, rest = string.match(ARGV[i], '^([a-z_]+):(.*)$')
  if prefix == 'cache' or prefix == 'cache_meta' then
    if redis.pcall('HEXISTS', 'cache_meta:' .. rest, 'version') == 1 then
      gone = gone + redis.call('UNLINK', 'cache:' .. rest, 'cache_meta:' .. rest)
    end
  elseif string.find(ARGV[i], '^sidecache:tombstones') then
    gone = gone + redis.call('UNLINK', ARGV[i])
  elseif prefix and kinds[prefix] == redis.call('TYPE', ARGV[i]).ok then
    gone = gone + redis.call('UNLINK', ARGV[i])
  end
end
return gone
