-- Writes the entries that `set_plain.lua` left, in their order; a key may occur more than once. ARGV: token, ns,
-- secret, the limit of charged bytes on this shard (0: none), the eviction policy, then for each entry key, value, TTL
-- in ms ('' for none), tags separated by line feeds, place, preconditions ('' for none), `extra` ('' for none).
-- Returns for each entry its version, negative if it replaced another entry; -1 if there is no room for it; 0 for the
-- first entry that must be sent again and for all entries after it, because making room is done in bounded steps;
-- {name, type} if a key that the entry needs holds another type, {version of the present entry, or '0'} if the
-- preconditions are not met, {'newer:' and the same} if its source version is too old, {'lease'} if its lease is lost,
-- and then nothing of the entry is stored.
-- The last two elements of the answer are how many entries were removed to make room, and the number of the change.

local limit, policy = tonumber(ARGV[4]), ARGV[5]
local call, pcall, prefix = redis.call, redis.pcall, ns .. ':'
local evicted = {}

-- Publish first, because the user may lack the right to publish.
if not is_published then
  local keys = {}
  for i = FIRST, #ARGV, FIELDS do
    keys[#keys + 1] = ARGV[i]
  end
  seq = count_change()
  if type(seq) == 'table' then
    return seq
  end
  publish('set', keys, seq)
end

local has_stored = false
-- If the totals are lost, it is not known whether there are leases.
local may_have_leases = known[8] or not known[3]

local last_size, size_text
for i = next_entry, #ARGV, FIELDS do
  local key, value, ttl, tags, extra = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 6]
  local id = prefix .. key
  local value_key, meta_key = 'cache:' .. id, 'cache_meta:' .. id
  local foreign = foreign_books
  local previous = pcall('HMGET', meta_key, 'size_bytes', 'tags', 'expires_at', 'version', 'extra', 'source_version')
  local source_version, had_source_version = version_of(ARGV[i + 5]), previous[6]
  if previous.err then
    foreign = foreign_at(meta_key)
  elseif tags ~= '' and previous[2] ~= tags then
    foreign = foreign or foreign_tag(tags)
  end
  local lease = string.match(ARGV[i + 5], 'l(%x+)')
  local refused, answer, filled, lease_number = false, nil, nil, nil
  if not foreign and lease then
    local state, detail = state_of_lease(id, lease)
    refused, answer = state == 'lost', 'lease'
    filled, lease_number = state == 'filled' and detail, state == 'stands' and detail
  end
  if not foreign and not refused and not filled and ARGV[i + 5] ~= '' then
    local is_absent = counts_as_absent(previous[5])
    refused, answer = is_refused(ARGV[i + 5], not is_absent and previous[4], value_key)
    if source_version and not refused then
      refused, answer = is_outdated(source_version, key, { previous[4], had_source_version })
      answer = is_absent and 'newer:0' or answer
    end
  end
  local room = not foreign and not refused and not filled
  if room and make_room then
    local made_before = made_room
    local own = previous[1] and charge_of(key, previous[2], tonumber(previous[1]) or 0) or 0
    room = make_room(limit, policy, key, charge_of(key, tags, #value), own, evicted)
    if made_room ~= made_before then
      has_stored = true
      -- The old entry may have been among the expired entries.
      previous = pcall('HMGET', meta_key, 'size_bytes', 'tags', 'expires_at', 'version', 'extra')
    end
  end
  if foreign then
    answers[#answers + 1] = foreign
  elseif refused then
    answers[#answers + 1] = { answer }
  elseif filled then
    -- The write is sent again: it is already done.
    answers[#answers + 1] = filled
  elseif room == 'again' then
    for _ = i, #ARGV, FIELDS do
      answers[#answers + 1] = 0
    end
    break
  elseif room == 'full' then
    answers[#answers + 1] = -1
  else
    local size = previous[1] and (tonumber(previous[1]) or 0)
    local had_expiry, had_tags, had_extra = goes_at(previous[3], previous[5]), previous[2] or '', previous[5] or ''
    if #value ~= last_size then
      last_size, size_text = #value, integer(#value)
    end
    -- The end of its freshness, and the time at which it goes.
    local expires, goes, score = '0', '0', '+inf'
    if ttl ~= '' then
      expires = integer(now_ms + ttl)
      goes = goes_at(expires, extra)
      score = goes
    end

    -- An entry without expiry that replaces one without expiry needs no change in the index.
    local added, why_not = 0, nil
    local is_indexed = size and had_expiry == '0' and goes == '0' and not books.is_in_repair
    if not is_indexed then
      -- The bucket is already due at the expiry of the replaced entry, or earlier.
      local had = tonumber(had_expiry or 0) or 0
      local due_by = ttl ~= '' and (books.is_in_repair or had == 0 or had > tonumber(goes)) and score
      local old_score = had == 0 and '+inf' or had_expiry
      added, why_not = put_in_index(tonumber(ARGV[i + 4]), score, key, due_by, old_score)
    end
    if why_not and why_not.err then
      -- Redis accepts no writes at present: it refuses the first write of a script.
      return why_not
    elseif why_not then
      answers[#answers + 1] = why_not
    else
      -- If the metadata exists, the value usually exists too, and then one command stores it.
      local condition = size and 'XX' or 'NX'
      local alive = size and true or false
      if ttl == '' then
        if not call('SET', value_key, value, condition) then
          call('SET', value_key, value)
          alive = false
        end
      elseif not call('SET', value_key, value, 'PXAT', score, condition) then
        call('SET', value_key, value, 'PXAT', score)
        alive = false
      end
      has_stored = true

      local version = next_version()
      local version_text = integer(version)
      if not alive then
        call('HSET', meta_key, 'created_at', now_text, 'version', version_text, 'size_bytes', size_text,
          'expires_at', expires, 'access_count', '0', 'last_accessed', now_text)
      elseif size == #value and previous[3] == expires then
        call('HSET', meta_key, 'created_at', now_text, 'version', version_text)
      else
        call('HSET', meta_key, 'created_at', now_text, 'version', version_text, 'size_bytes', size_text,
          'expires_at', expires)
      end
      if size and not alive then
        count_loss(had_expiry == '0' and '+inf' or had_expiry or '+inf')
        if is_indexed and type(pcall('ZSCORE', name_of(bucket_at(tonumber(ARGV[i + 4]))), key)) ~= 'string' then
          is_lost = true
        end
      end

      if had_extra ~= extra then
        if extra == '' then
          call('HDEL', meta_key, 'extra')
        else
          call('HSET', meta_key, 'extra', extra)
        end
      end
      if source_version then
        call('HSET', meta_key, 'source_version', source_version)
        tomb_count = tomb_count or 0
      elseif had_source_version then
        call('HDEL', meta_key, 'source_version')
      end
      remove_tombstone(key)
      if had_tags ~= tags then
        untag(key, had_tags)
        if tags == '' then
          call('HDEL', meta_key, 'tags')
        else
          call('HSET', meta_key, 'tags', tags)
        end
      end
      if tags ~= '' and (had_tags ~= tags or added == 1) then
        tag_entry(key, tags, ARGV[i + 4])
      end

      local charge = charge_of(key, tags, #value)
      if added == 1 then
        -- Metadata of a key that was not in the index: part of the index was lost.
        is_lost = is_lost or (size and not books.is_in_repair)
        books.keys = books.keys + 1
        books.bytes = books.bytes + #value
        books.charged = books.charged + charge
      elseif size then
        books.bytes = books.bytes + #value - size
        books.charged = books.charged + charge - charge_of(key, had_tags, size)
      else
        -- The key was in the index, but without metadata its size is unknown.
        is_lost = true
      end
      -- What is written over a known absence is new.
      local is_replaced = alive and not counts_as_absent(previous[5])
      answers[#answers + 1] = is_replaced and -version or version
      if lease then
        local done = lease_number .. ':' .. lease .. ':' .. (is_replaced and '-' or '') .. version_text
        call('SET', 'sidecache:lease:' .. id, 'filled:' .. done, 'KEEPTTL')
      elseif may_have_leases then
        call('UNLINK', 'sidecache:lease:' .. id)
      end
    end
  end
end
if has_stored or is_lost then
  save_books()
  save_tombstones()
  publish('evict', evicted)
end
answers[#answers + 1] = made_room
answers[#answers + 1] = seq
return answers
