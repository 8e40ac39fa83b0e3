-- Begins to find the entries of a namespace again, unless that is under way. ARGV: token, ns, secret, 1 to begin anew
-- in any case, 2 to begin anew where more was lost meanwhile. Returns the scope in which they are put.

if foreign_books then
  -- Of another type: nothing of ours.
  redis.call('UNLINK', stats)
  foreign_books = nil
  is_new = redis.call('SISMEMBER', KEYS[1], 'n:' .. ns) == 0
  begin_scope()
elseif not has_new_scope and (ARGV[4] == '1' or (ARGV[4] == '2' and books.is_again) or not books.is_in_repair) then
  begin_scope()
end
if has_new_scope then
  save_books()
end
return books.scope
