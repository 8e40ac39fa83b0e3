-- Deletes one entry, even if one of its keys holds another type. ARGV: token, ns, secret, key,
-- place, preconditions ('' for none).
-- Returns 1 if there was something to delete, else 0; {version of the present entry, or '0'} if the preconditions are
-- not met, and then nothing is deleted.

local key = ARGV[4]
if ARGV[6] ~= '' then
  local id = ns .. ':' .. key
  local meta = redis.pcall('HMGET', 'cache_meta:' .. id, 'version')
  local refused, present = is_refused(ARGV[6], meta[1], 'cache:' .. id)
  if refused then
    return { present }
  end
end
if not is_published then
  publish({ key })
end
if known[8] or not known[3] then
  redis.call('UNLINK', 'sidecache:lease:' .. ns .. ':' .. key)
end
local alive, score = take_out(key, nil, tonumber(ARGV[5]))
if score then
  count_loss(score)
end
if alive or score or is_lost or has_new_scope then
  save_books()
end
return alive and 1 or 0
