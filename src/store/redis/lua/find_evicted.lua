-- Takes entries out of the books whose values Redis evicted. ARGV: ns, the place to go on from, at
-- most about how many keys to look at, the most work on those that are gone. Returns the place to go
-- on from, 2^32 at the end.

local place, looks, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local lost = {}
while place < PLACES and looks > 0 and work < most do
  local start, width = bucket_at(place)
  local live = redis.call('ZRANGEBYSCORE', name_of(start), '(' .. now_text, '+inf')
  local is_done = true
  for _, key in ipairs(live) do
    if redis.call('EXISTS', 'cache:' .. ns .. ':' .. key) == 0 then
      if work >= most then
        is_done = false
        break
      end
      local _, score = take_out(key)
      count_loss(score)
      lost[#lost + 1] = key
    end
  end
  looks = looks - #live - 1
  if is_done then
    place = start + width
  end
end
if #lost > 0 then
  save_books()
  publish(lost)
end
return integer(place)
