-- Takes expired entries out of the books, and others by the policy while there is too much.
-- ARGV: ns, the most work, the bytes that its entries may take on this shard (0: any number), its
-- eviction policy. Returns 1 when there may be more to do, else 0.
-- Copies elsewhere expire by themselves, so only what was evicted is published.

local most, limit, policy = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local taken, more = take_expired(most)
local evicted = {}
while limit > 0 and policy ~= 'NONE' and books.bytes > limit and books.keys > 1 do
  local key = work < most and victim(policy)
  if not key then
    more = more or work >= most
    break
  end
  evict(key)
  evicted[#evicted + 1] = key
end
if taken + #evicted > 0 then
  save_books()
  publish(evicted)
end
return more and 1 or 0
