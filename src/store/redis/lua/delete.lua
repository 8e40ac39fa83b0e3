-- Deletes one entry, and what stands under its names in another type. ARGV: token, ns, secret, key.
-- Returns 1 when something was there to delete, else 0.

local key = ARGV[4]
publish({ key })
local alive, score = take_out(key)
if score then
  count_loss(score)
end
if alive or score or is_lost or has_new_scope then
  save_books()
end
return alive and 1 or 0
