-- Deletes one entry, even if one of its keys holds another type. ARGV: token, ns, secret, key, place.
-- Returns 1 if there was something to delete, else 0.

local key = ARGV[4]
if not is_published then
  publish({ key })
end
local alive, score = take_out(key, nil, tonumber(ARGV[5]))
if score then
  count_loss(score)
end
if alive or score or is_lost or has_new_scope then
  save_books()
end
return alive and 1 or 0
