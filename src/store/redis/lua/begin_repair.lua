-- Begins a repair of the index of a namespace. ARGV: token, ns, secret, the reason: 'lost' if part of the index is
-- missing, which may be known already; 'foreign' if one of its keys holds another type; 'walk' if the walk begins,
-- which needs a new scope if more was lost meanwhile. Returns the scope to which entries are added, '' if there is
-- nothing to repair.

local why = ARGV[4]
if foreign_books then
  -- The key holds another type and is not ours.
  redis.call('UNLINK', stats)
  foreign_books = nil
  is_new = redis.call('SISMEMBER', KEYS[1], 'n:' .. ns) == 0
  begin_scope()
elseif has_new_scope then
  -- The bookkeeping was lost, and a new scope has already begun.
elseif why == 'foreign' or (why == 'lost' and not books.is_in_repair) or (why == 'walk' and books.is_again) then
  begin_scope()
end
if has_new_scope then
  save_books()
end
return books.is_in_repair and books.scope or ''
