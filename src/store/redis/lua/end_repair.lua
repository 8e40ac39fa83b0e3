-- Ends the repair of a namespace if the scope is still the one to which entries were added. ARGV: token, ns, secret,
-- the scope. Returns {1 if the repair has ended, 2 if it must be done again because more was lost meanwhile, 0 if the
-- scope has changed; how many entries there are now}.

local is_over = books.scope == ARGV[4] and not has_new_scope
if is_over and not books.is_again then
  redis.call('HDEL', stats, 'repair')
end
return { is_over and (books.is_again and 2 or 1) or 0, books.keys }
