-- Changes the TTL or the tags of an entry. Its value, its version and its grace stay, and so does a lease on its key.
-- Comes after `extra.lua`, and `quota.lua` or `no_quota.lua`. ARGV: token, ns, secret, the limit of charged bytes on
-- this shard (0: none), the eviction policy, key, place, the new TTL in ms ('never': it does not expire; '': as
-- before), 1 if the tags change, else 0; the new tags separated by line feeds, preconditions ('' for none).
-- Returns {what became of it, two details, how many entries were removed to make room, the number of the change}:
--   'patched', the version, ms until the end of its freshness or -1; 'absent': there is no such entry;
--   'refused', the version of the present entry, or '0': the preconditions are not met;
--   'foreign', name, type: a key that the change needs holds another type;
--   'full': there is no room for the tags;
--   'again': send the script again, because making room is done in bounded steps.
-- Only 'patched' changes the entry.

local limit, policy, key, place = tonumber(ARGV[4]), ARGV[5], ARGV[6], tonumber(ARGV[7])
local ttl, tags = ARGV[8], ARGV[9] == '1' and ARGV[10]
local call, pcall = redis.call, redis.pcall
local id = ns .. ':' .. key
local value_key, meta_key = 'cache:' .. id, 'cache_meta:' .. id
local evicted = {}

-- Ends the script. Saves the totals if the script changed anything.
local function answer(what, one, other, has_changed)
  if has_changed or made_room > 0 or is_lost or has_new_scope then
    save_books()
    publish('evict', evicted)
  end
  return { what, one or '', other or '', made_room, seq or 0 }
end

local meta = pcall('HMGET', meta_key, 'size_bytes', 'tags', 'expires_at', 'version', 'extra')
local found = call('TYPE', value_key).ok
local is_live = found == 'string' and not meta.err and meta[4]
local extra = is_live and meta[5] or ''
-- An entry which says that there is no such thing is not changed.
local is_present = is_live and not counts_as_absent(extra) and meta[4]

-- The first key of another type that the change needs; nil if there is none.
local function foreign_key()
  if meta.err then
    return foreign_at(meta_key)
  elseif found ~= 'string' and found ~= 'none' then
    return { value_key, found }
  elseif not is_live then
    return nil
  end
  for _, name in ipairs({ name_of(bucket_at(place)), due }) do
    if is_wrong_type(pcall('ZSCORE', name, key)) then
      return foreign_at(name)
    end
  end
  return foreign_books or (tags and foreign_tag(tags))
end

local foreign = foreign_key()
if foreign then
  return answer('foreign', foreign[1], foreign[2])
end
local refused, present = is_refused(ARGV[11], is_present, value_key)
if refused then
  return answer('refused', present)
end
if not is_present then
  local is_left = not is_live and call('EXISTS', value_key, meta_key) > 0
  if is_left then
    -- It has expired, or Redis evicted a part of it.
    publish('evict', { key })
    local _, score = take_out(key, meta, place)
    if score then
      count_loss(score)
    end
  end
  return answer('absent', nil, nil, is_left)
end

local had_tags, had_expiry, size = meta[2] or '', meta[3], tonumber(meta[1] or '')
tags = tags or had_tags
local own, charge = charge_of(key, had_tags, size or 0), charge_of(key, tags, size or 0)
-- Publish before the first write, because the user may lack the right to publish.
seq = count_change(charge <= own)
if type(seq) == 'table' then
  return seq
end
publish('touch', { key }, seq)
if make_room and charge > own then
  local room = make_room(limit, policy, key, charge, own, evicted)
  if room ~= 'fits' then
    return answer(room)
  elseif made_room > 0 and call('EXISTS', meta_key) == 0 then
    -- It expired at this moment and was one of the expired entries.
    return answer('absent')
  end
end

if charge > own then
  -- Changes nothing, but a Redis that is out of memory refuses it, and then nothing of this script is done.
  call('HSET', meta_key, 'version', meta[4])
else
  -- A deletion first: the change needs no memory, see `removal.lua`.
  call('UNLINK', 'sidecache:none')
end

-- The end of its freshness, and the time at which it goes.
local expires, new_extra = had_expiry, extra
if string.find(extra, 'm', 1, true) and had_expiry then
  -- Its freshness was ended before its time, and stays ended. It may go earlier than it would.
  if ttl ~= '' and ttl ~= 'never' and now_ms + ttl < tonumber(goes_at(expires, extra)) then
    new_extra = string.gsub(extra, 'g%d+', 'g' .. integer(math.max(now_ms + ttl - expires, 0)))
  end
elseif ttl == 'never' then
  expires = '0'
elseif ttl ~= '' then
  expires = integer(now_ms + ttl)
elseif not expires then
  local left = call('PTTL', value_key)
  expires = left < 0 and '0' or integer(now_ms + left)
end
local goes = goes_at(expires, new_extra)
if ttl ~= '' and goes == '0' then
  call('PERSIST', value_key)
elseif ttl ~= '' then
  call('PEXPIREAT', value_key, goes)
end
-- Cannot fail: the types are checked.
local score = goes == '0' and '+inf' or goes
local added = put_in_index(place, score, key, goes ~= '0' and score) or 0

if expires ~= had_expiry then
  call('HSET', meta_key, 'expires_at', expires)
end
if new_extra ~= extra then
  call('HSET', meta_key, 'extra', new_extra)
end
if tags ~= had_tags then
  untag(key, had_tags)
  if tags == '' then
    call('HDEL', meta_key, 'tags')
  else
    call('HSET', meta_key, 'tags', tags)
  end
end
if tags ~= '' and (tags ~= had_tags or added == 1) then
  tag_entry(key, tags, ARGV[7])
end

if added == 1 then
  -- It was not in the index: part of the index was lost.
  is_lost = is_lost or not books.is_in_repair
  books.keys = books.keys + 1
  books.bytes = books.bytes + (size or 0)
  books.charged = books.charged + charge
else
  books.charged = books.charged + charge - own
end
-- Without its size the totals cannot be right.
is_lost = is_lost or not size
return answer('patched', meta[4], expires == '0' and '-1' or integer(math.max(expires - now_ms, 0)), true)
