-- Deletes one entry. ARGV: ns, key. Returns 1 when it was alive, else 0.

local key = ARGV[2]
local alive, score = take_out(key)
if score then
  count_loss(score)
end
if alive or score then
  save_books()
end
publish({ key })
return alive and 1 or 0
