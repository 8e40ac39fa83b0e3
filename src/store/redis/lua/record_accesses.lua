-- Adds reads to the metadata of entries that are still there. ARGV: for each entry
-- 'namespace:key', how many reads, the moment of the last one in ms.

for i = 1, #ARGV, 3 do
  local meta_key, reads, at = 'cache_meta:' .. ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local known = redis.call('HGET', meta_key, 'last_accessed')
  if known then
    redis.call('HINCRBY', meta_key, 'access_count', reads)
    if tonumber(at) > tonumber(known) then
      redis.call('HSET', meta_key, 'last_accessed', at)
    end
  end
end
return 1
