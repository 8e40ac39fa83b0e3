-- Ends the search for entries of a namespace, if its scope is still the one in which they were put. ARGV: token, ns,
-- secret, the scope. Returns {1 if so, 2 if more was lost meanwhile, else 0; how many entries the books have now}.

local is_over = books.scope == ARGV[4] and not has_new_scope
if is_over and not books.is_again then
  redis.call('HDEL', stats, 'repair')
end
return { is_over and (books.is_again and 2 or 1) or 0, books.keys }
