-- The common case of `set.lua` without the functions that the other cases need: Redis creates all functions of a script
-- at every call, and they cost more than the commands of a write. Comes after `constants.lua` and before `prelude.lua`.
--
-- Stores entries in their order for as long as each is plain: its preconditions are met, it fills no lease, neither
-- it nor the entry before it has the field `extra`, there are no source versions in its namespace, its tags do not
-- change (a new entry has none), its namespace is complete and not in repair, it fits into the quota and into the
-- buckets of the index, and none of its keys is lost or holds another type. At the first entry that is not plain,
-- this part saves the totals and leaves that entry unchanged, and `set.lua` continues there. `index.lua` explains
-- buckets, marks and scopes.

local FIRST, FIELDS = 6, 7
-- The answers for the entries before `next_entry`, which are stored; whether all keys of the script are published.
local answers, next_entry, is_published = {}, FIRST, false

do
  local call, pcall, format = redis.call, redis.pcall, string.format
  local ns, limit = ARGV[2], tonumber(ARGV[4])
  local stats = 'cache_stats:' .. ns
  known = pcall('HMGET', stats, 'total_keys', 'total_bytes', 'version', 'buckets', 'charged_bytes', 'scope', 'repair',
    'lease_floor', 'tombstones')
  local keys, bytes, charged = tonumber(known[1] or ''), tonumber(known[2] or ''), tonumber(known[5] or '')
  local version, buckets = tonumber(known[3] or ''), tonumber(known[4] or '')
  local is_plain = keys and bytes and charged and version and buckets and buckets >= 1 and not known[7] and not known[9]
    and (buckets == 1 or keys >= buckets * SPARSE_BUCKET)

  if is_plain then
    local scope = ns .. (known[6] or '')
    local index, due = 'cache_index:' .. scope .. ':', 'cache_due:' .. scope
    local _, exponent = math.frexp(buckets)
    local whole = 2 ^ (exponent - 1)
    local width = PLACES / whole
    local split_below = (buckets - whole) * width
    local keys_before, bytes_before, charged_before = keys, bytes, charged

    time = call('TIME')
    local now_us = time[1] * 1000000 + time[2]
    local now_ms = (now_us - now_us % 1000) / 1000
    local now_text = format('%d', now_ms)

    for i = FIRST, #ARGV, FIELDS do
      local key, value, ttl, tags = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
      local id = ns .. ':' .. key
      local meta_key = 'cache_meta:' .. id
      local previous = pcall('HMGET', meta_key, 'size_bytes', 'tags', 'expires_at', 'version', 'extra')
      local size, had_expiry = tonumber(previous[1] or ''), previous[3]
      local more = #value - (size or 0)
      local more_charged = size and more or more + #key + ENTRY_OVERHEAD
      if previous.err or tags ~= (previous[2] or '') or previous[5] or ARGV[i + 6] ~= '' or (previous[1] and not (size and had_expiry))
        or (not size and keys >= buckets * FULL_BUCKET) or (limit > 0 and charged + more_charged > limit) then
        break
      end
      local conditions = ARGV[i + 5]
      if conditions ~= ''
        and (string.find(conditions, '[ls]') or is_refused(conditions, previous[4], 'cache:' .. id)) then
        break
      end

      -- Publish before the first write, because the user may lack the right to publish.
      if not is_published then
        -- As `count.lua`, which continues if this fails: Redis accepts no writes at present, or the count is lost.
        seq = pcall('INCR', 'sidecache:seq')
        if type(seq) ~= 'number' or seq == 1 then
          break
        end
        local names = key
        if #ARGV >= FIRST + FIELDS then
          local all = {}
          for j = FIRST, #ARGV, FIELDS do
            all[#all + 1] = ARGV[j]
          end
          names = table.concat(all, '\n')
        end
        call('PUBLISH', CHANNEL, format('%d set ', seq) .. ns .. '\n' .. names)
        is_published = true
      end

      local expires, score = '0', '+inf'
      if ttl ~= '' then
        expires = format('%d', now_ms + ttl)
        score = expires
      end
      local added, bucket = 0, nil
      if not size or had_expiry ~= '0' or expires ~= '0' then
        local place = tonumber(ARGV[i + 4])
        local start = format('%d', place - place % (place < split_below and width / 2 or width))
        bucket = index .. start
        -- The bucket is already due at the expiry of the replaced entry, or earlier.
        local had = tonumber(had_expiry or 0) or 0
        if ttl ~= '' and (had == 0 or had > now_ms + ttl) and type(pcall('ZADD', due, 'LT', score, start)) == 'table' then
          break
        end
        added = pcall('ZADD', bucket, score, key)
        if type(added) == 'table' then
          break
        end
      end
      local condition, is_stored = size and 'XX' or 'NX', false
      if added == (size and 0 or 1) then
        if ttl == '' then
          is_stored = call('SET', 'cache:' .. id, value, condition)
        else
          is_stored = call('SET', 'cache:' .. id, value, 'PXAT', score, condition)
        end
      end
      if not is_stored then
        -- The metadata does not agree with the index or with the value.
        if added == 1 then
          call('ZREM', bucket, key)
        end
        break
      end

      if known[8] then
        -- A change ends the lease of its key.
        call('UNLINK', 'sidecache:lease:' .. id)
      end
      version = math.max(version + 1, now_us)
      local version_text = format('%d', version)
      if not size then
        call('HSET', meta_key, 'created_at', now_text, 'version', version_text, 'size_bytes', format('%d', #value),
          'expires_at', expires, 'access_count', '0', 'last_accessed', now_text)
        keys = keys + 1
      elseif more == 0 and had_expiry == expires then
        call('HSET', meta_key, 'created_at', now_text, 'version', version_text)
      elseif more == 0 then
        call('HSET', meta_key, 'created_at', now_text, 'version', version_text, 'expires_at', expires)
      else
        call('HSET', meta_key, 'created_at', now_text, 'version', version_text, 'size_bytes', format('%d', #value),
          'expires_at', expires)
      end
      bytes, charged = bytes + more, charged + more_charged
      answers[#answers + 1] = size and -version or version
      next_entry = i + FIELDS
    end

    if keys ~= keys_before or bytes ~= bytes_before or charged ~= charged_before then
      call('HSET', stats, 'version', format('%d', version), 'total_keys', format('%d', keys),
        'total_bytes', format('%d', bytes), 'charged_bytes', format('%d', charged))
    elseif next_entry > FIRST then
      call('HSET', stats, 'version', format('%d', version))
    end
  end
  if next_entry > FIRST then
    known = nil
  end
end

if next_entry > #ARGV then
  answers[#answers + 1] = 0
  answers[#answers + 1] = seq
  return answers
end
