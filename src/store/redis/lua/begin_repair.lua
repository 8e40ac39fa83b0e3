-- Begins to find the entries of a namespace again. ARGV: token, ns, secret, why: 'lost' where a part of the index is
-- missing, which may be known already; 'foreign' where something of another type stands under one of its names;
-- 'walk' where the walk begins, which begins anew if more was lost meanwhile. Returns the scope in which entries are
-- put, '' where there is nothing to find again.

local why = ARGV[4]
if foreign_books then
  -- Of another type: nothing of ours.
  redis.call('UNLINK', stats)
  foreign_books = nil
  is_new = redis.call('SISMEMBER', KEYS[1], 'n:' .. ns) == 0
  begin_scope()
elseif has_new_scope then
  -- The books are lost, and have begun anew.
elseif why == 'foreign' or (why == 'lost' and not books.is_in_repair) or (why == 'walk' and books.is_again) then
  begin_scope()
end
if has_new_scope then
  save_books()
end
return books.is_in_repair and books.scope or ''
