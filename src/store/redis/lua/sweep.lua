-- Takes expired entries out of the books. ARGV: ns, at most how many. Returns how many it took.
-- Copies elsewhere expire by themselves, so nothing is published.

local due = redis.call('ZRANGEBYSCORE', index, '-inf', integer(now_ms), 'LIMIT', 0, ARGV[2])
for _, key in ipairs(due) do
  local _, score = take_out(key)
  count_loss(score)
end
if #due > 0 then
  save_books()
end
return #due
