-- Takes entries out of the books whose values Redis evicted. ARGV: ns, the place to go on from, at
-- most about how many keys to look at. Returns the place to go on from, 2^32 at the end.

local place, looks = tonumber(ARGV[2]), tonumber(ARGV[3])
local lost = {}
while place < PLACES and looks > 0 do
  local start, width = bucket_at(place)
  local live = redis.call('ZRANGEBYSCORE', name_of(start), '(' .. now_text, '+inf')
  for _, key in ipairs(live) do
    if redis.call('EXISTS', 'cache:' .. ns .. ':' .. key) == 0 then
      lost[#lost + 1] = key
    end
  end
  looks = looks - #live - 1
  place = start + width
end
for _, key in ipairs(lost) do
  local _, score = take_out(key)
  count_loss(score)
end
if #lost > 0 then
  save_books()
  publish(lost)
end
return integer(place)
