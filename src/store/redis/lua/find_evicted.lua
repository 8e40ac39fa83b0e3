-- Removes entries from index and totals if Redis evicted their value or metadata. ARGV: token, ns, secret, the place
-- to continue from, about how many keys to look at, the most work on entries that are gone. Returns the place to
-- continue from, 2^32 at the end.

local place, looks, most = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local lost = {}
while place < PLACES and looks > 0 and work < most and not is_lost do
  local start, width = bucket_at(place)
  local live = books.buckets > 0 and redis.pcall('ZRANGEBYSCORE', name_of(start), '(' .. now_text, '+inf') or {}
  if books.buckets > 0 and (live.err or not redis.call('ZSCORE', name_of(start), MARK)) then
    is_lost = true
    break
  end
  local is_done = true
  for _, key in ipairs(live) do
    if key ~= MARK and redis.call('EXISTS', 'cache:' .. ns .. ':' .. key, 'cache_meta:' .. ns .. ':' .. key) < 2 then
      if work >= most then
        is_done = false
        break
      end
      local _, score = take_out(key)
      count_loss(score or '+inf')
      lost[#lost + 1] = key
    end
  end
  looks = looks - #live - 1
  if is_done then
    place = start + width
  end
end
if #lost > 0 or is_lost or has_new_scope then
  save_books()
  publish('evict', lost)
end
return integer(is_lost and PLACES or place)
