-- Takes entries out of the books whose values are gone: expired, or evicted by Redis.
-- ARGV: ns, key...

local evicted = {}
local count = 0
for i = 2, #ARGV do
  local key = ARGV[i]
  -- It may have been written again meanwhile.
  if redis.call('EXISTS', 'cache:' .. ns .. ':' .. key) == 0 then
    local _, score = take_out(key)
    if score then
      count = count + 1
      if count_loss(score) == 'evictions' then
        evicted[#evicted + 1] = key
      end
    end
  end
end
if count > 0 then
  save_books()
  publish(evicted)
end
return count
