-- Deletes entries, except those with a version above `before`, which were written after the flush began. ARGV: token,
-- ns, secret, before, the tag that an entry must have ('' for any), how long tombstones stay in ms, then key and
-- place of each entry. Returns {how many live entries were deleted, the keys that are gone, how many tombstones were
-- dropped}.

local before, tag = tonumber(ARGV[4]), ARGV[5]
local deleted, gone, places, metas = 0, {}, {}, {}
for i = 7, #ARGV, 2 do
  local key = ARGV[i]
  local meta = redis.pcall('HMGET', 'cache_meta:' .. ns .. ':' .. key, 'size_bytes', 'tags', 'version', 'source_version')
  local has_tag = tag == '' or (not meta.err and meta[2]
    and string.find('\n' .. meta[2] .. '\n', '\n' .. tag .. '\n', 1, true))
  -- Without a version it is not an entry any more.
  local version = not meta.err and tonumber(meta[3] or '')
  if (has_tag or not version) and (not version or version <= before) then
    gone[#gone + 1] = key
    places[#places + 1] = tonumber(ARGV[i + 1])
    metas[#metas + 1] = meta
  end
end
publish('flush', gone)
for i, key in ipairs(gone) do
  local alive, score = take_out(key, metas[i], places[i])
  if alive and not metas[i].err and metas[i][3] then
    deleted = deleted + 1
    if metas[i][4] then
      bury(key, metas[i][4], ARGV[6])
    end
  elseif score then
    count_loss(score)
  end
end
if #gone > 0 or is_lost or has_new_scope then
  save_books()
end
save_tombstones()
return { deleted, gone, tombs_dropped }
