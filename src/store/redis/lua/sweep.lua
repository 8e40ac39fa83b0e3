-- Removes expired entries from index and totals, and evicts others by the policy while the namespace is over its
-- limit.
-- ARGV: token, ns, secret, the most work, the limit of charged bytes on this shard (0: none), the eviction policy,
-- 'memory' if the server is out of memory. Returns {1 if there may be more to do, else 0; 1 if a repair is needed,
-- else 0; how many tombstones were lost}.
-- Copies of expired entries expire by themselves, so only evicted keys are published.

local most, limit, policy = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
is_for_memory = ARGV[7] == 'memory'
local taken, more = take_expired(most)
more = prune_tombstones(most) or more
local evicted = {}
while limit > 0 and policy ~= 'NONE' and books.charged > limit and books.keys > 1 do
  local out = work < most and victims(policy, nil, at_once(books.charged - limit, limit)) or {}
  if #out == 0 then
    more = more or work >= most
    break
  end
  for _, key in ipairs(out) do
    evict(key)
    evicted[#evicted + 1] = key
  end
end
if books.buckets > 0 and not redis.pcall('ZSCORE', due, MARK) then
  is_lost = true
end
if taken + #evicted > 0 or is_lost or has_new_scope then
  save_books()
  publish('evict', evicted)
end
save_tombstones()
return { more and 1 or 0, books.is_in_repair and 1 or 0, tombs_dropped }
