-- Deletes one entry, even if one of its keys holds another type. ARGV: token, ns, secret, key, place, preconditions
-- ('' for none), how long a tombstone stays in ms.
-- Returns {1 if there was something to delete, else 0, also if it deleted a known absence; the number of the change;
-- how many tombstones were dropped}, or {version of the present entry, or '0'} if the preconditions are not met,
-- {'newer:' and the same} if the source version is too old, and then nothing is deleted.

local key = ARGV[4]
local id = ns .. ':' .. key
local meta = redis.pcall('HMGET', 'cache_meta:' .. id, 'size_bytes', 'tags', 'version', 'source_version', 'extra')
local is_absent = not meta.err and counts_as_absent(meta[5])
local source_version = version_of(ARGV[6])
if ARGV[6] ~= '' then
  local refused, answer = is_refused(ARGV[6], not is_absent and meta[3], 'cache:' .. id)
  if source_version and not refused then
    refused, answer = is_outdated(source_version, key, { meta[3], meta[4] })
    answer = is_absent and 'newer:0' or answer
  end
  if refused then
    return { answer }
  end
end
if not is_published then
  seq = count_change(true)
  if type(seq) == 'table' then
    return seq
  end
  publish('delete', { key }, seq)
end
if known[8] or not known[3] then
  redis.call('UNLINK', 'sidecache:lease:' .. id)
end
local alive, score = take_out(key, meta, tonumber(ARGV[5]))
if score then
  count_loss(score)
end
-- A deletion without a source version leaves that of the entry.
local left = source_version or (alive and meta[4])
if left then
  bury(key, left, ARGV[7])
end
if alive or score or is_lost or has_new_scope or left then
  save_books()
end
save_tombstones()
return { alive and not is_absent and 1 or 0, seq, tombs_dropped }
