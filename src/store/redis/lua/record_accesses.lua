-- Adds reads to the metadata of entries that still exist. ARGV: token, then for each entry 'namespace:key', the
-- number of reads, and how many ms ago the last one was: times are always by the shard's clock.

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 2, #ARGV, 3 do
  local meta_key, reads, at = 'cache_meta:' .. ARGV[i], ARGV[i + 1], now_ms - ARGV[i + 2]
  local known = redis.pcall('HGET', meta_key, 'last_accessed')
  if type(known) == 'string' then
    redis.call('HINCRBY', meta_key, 'access_count', reads)
    if at > (tonumber(known) or 0) then
      redis.call('HSET', meta_key, 'last_accessed', string.format('%d', at))
    end
  end
end
return 1
