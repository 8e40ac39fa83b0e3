-- Removes what is left of lost indexes. ARGV: token, ns, secret, then names of Redis keys. Keys of the present scope
-- stay. Returns how many keys were removed.

local gone = 0
for i = 4, #ARGV do
  local name = ARGV[i]
  local is_present = name == due or name == tag_counts
  for _, prefix in ipairs({ index, tag_set('') }) do
    is_present = is_present or string.sub(name, 1, #prefix) == prefix
  end
  if not is_present then
    gone = gone + redis.call('UNLINK', name)
  end
end
return gone
