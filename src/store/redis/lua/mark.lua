-- Ends the freshness of entries now, except those with a version above `before`, which were written after the flush
-- began. ARGV: token, ns, secret, before ('' for any), the tag that an entry must have ('' for any), how long a
-- tombstone stays in ms, `stale_while_revalidate` and `stale_if_error` of the policy in ms, preconditions of the only
-- entry ('' for none), then key and place of each entry.
-- An entry is kept until it would have gone anyway, or until its window from now is over: its own grace, else that of
-- the policy, and then it is answered while somebody refreshes it; else `stale_if_error`, and then it is answered
-- only in place of errors. An entry without a window is deleted.
-- Returns {how many live entries are marked or deleted, their keys, how many tombstones were dropped, the number of
-- the change}, or {version of the present entry, or '0'} if the preconditions are not met, and then nothing changes.

local before, tag = tonumber(ARGV[4]), ARGV[5]
local call, pcall = redis.call, redis.pcall
local chosen, places, metas, lost = {}, {}, {}, {}
for i = 10, #ARGV, 2 do
  local key = ARGV[i]
  local id = ns .. ':' .. key
  local meta = pcall('HMGET', 'cache_meta:' .. id, 'size_bytes', 'tags', 'version', 'source_version', 'expires_at', 'extra')
  local has_tag = tag == '' or (not meta.err and meta[2]
    and string.find('\n' .. meta[2] .. '\n', '\n' .. tag .. '\n', 1, true))
  local version = not meta.err and tonumber(meta[3] or '')
  if ARGV[9] ~= '' then
    local refused, present = is_refused(ARGV[9], version and not counts_as_absent(meta[6]) and meta[3], 'cache:' .. id)
    if refused then
      return { present }
    end
  end
  local is_selected = version and has_tag and (not before or version <= before)
  if is_selected and call('EXISTS', 'cache:' .. id) == 1 then
    local last = #chosen + 1
    chosen[last], places[last], metas[last] = key, tonumber(ARGV[i + 1]), meta
  elseif is_selected or (not version and not meta.err) then
    -- It has expired, or Redis evicted a part of it; or there is no such entry.
    lost[#lost + 1] = { key, meta, tonumber(ARGV[i + 1]) }
  end
end

if #chosen > 0 then
  -- Changes nothing, but fails here, before the first change, if the user may not do it.
  call('PEXPIREAT', 'sidecache:none', now_text)
end
local changed = #chosen > 0 and chosen or tag == '' and not before and { ARGV[10] } or {}
if #changed > 0 then
  seq = count_change(true)
  if type(seq) == 'table' then
    return seq
  end
  publish('mark', changed, seq)
end
-- A deletion first, see `removal.lua`. A change ends the lease of its key, also if there is no entry.
call('UNLINK', 'sidecache:lease:' .. ns .. ':' .. (ARGV[10] or ''))
for i, key in ipairs(chosen) do
  local id, meta = ns .. ':' .. key, metas[i]
  call('UNLINK', 'sidecache:lease:' .. id)
  local extra, expires = meta[6] or '', tonumber(meta[5] or '0') or 0
  -- A grace of 0 was asked for, too.
  local own = tonumber(string.match(extra, 'g(%d+)') or '')
  local window, mark = own or tonumber(ARGV[7]), 'm1'
  if window == 0 then
    window, mark = tonumber(ARGV[8]), 'm0'
  end
  if string.find(extra, 'm%d') then
    -- It is marked already.
  elseif window == 0 then
    take_out(key, meta, places[i])
    if meta[4] then
      bury(key, meta[4], ARGV[6])
    end
  else
    local ends = expires == 0 and now_ms or math.min(expires, now_ms)
    local goes = now_ms + window
    if expires ~= 0 then
      goes = math.min(goes, expires + (own or 0))
    end
    local goes_text = integer(goes)
    local start = text_of(bucket_at(places[i]))
    pcall('ZADD', index .. start, 'XX', goes_text, key)
    pcall('ZADD', due, 'LT', goes_text, start)
    call('PEXPIREAT', 'cache:' .. id, goes_text)
    local kind = string.match(' ' .. extra .. ' ', ' ([ab] )') or ''
    call('HSET', 'cache_meta:' .. id, 'expires_at', integer(ends),
      'extra', kind .. 'g' .. integer(goes - ends) .. ' ' .. mark)
  end
end
local removed = {}
for _, one in ipairs(lost) do
  local key, meta, place = unpack(one)
  local is_left, score = take_out(key, meta, place)
  if score then
    count_loss(score)
  end
  if is_left or score or meta[3] then
    removed[#removed + 1] = key
  end
end
if #chosen > 0 or #removed > 0 or is_lost or has_new_scope then
  save_books()
  publish('evict', removed)
end
save_tombstones()
return { #chosen, chosen, tombs_dropped, seq or 0 }
