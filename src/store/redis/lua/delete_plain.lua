-- The common cases of `delete.lua` as one straight line, see `set_plain.lua`: there is no such entry, or it has neither
-- tags nor the field `extra`; and its namespace is complete, without source versions, not in repair and in no need of
-- joined buckets. In every other case this part changes nothing.

local is_published = false

do
  local call, pcall, format = redis.call, redis.pcall, string.format
  local ns, key, place = ARGV[2], ARGV[4], tonumber(ARGV[5])
  local stats, id = 'cache_stats:' .. ns, ns .. ':' .. key
  local value_key, meta_key = 'cache:' .. id, 'cache_meta:' .. id
  local meta = pcall('HMGET', meta_key, 'size_bytes', 'tags', 'version', 'extra')
  known = pcall('HMGET', stats, 'total_keys', 'total_bytes', 'version', 'buckets', 'charged_bytes', 'scope', 'repair',
    'lease_floor', 'tombstones')
  local keys, bytes, charged = tonumber(known[1] or ''), tonumber(known[2] or ''), tonumber(known[5] or '')
  local buckets = tonumber(known[4] or '')
  if keys and bytes and charged and known[3] and buckets and buckets >= 1 and not known[7] and not known[9]
    and not string.find(ARGV[6], 's', 1, true) and not meta[2] and not meta[4] and not meta.err
    and keys > 1 and (buckets == 1 or keys > buckets * SPARSE_BUCKET) then
    if ARGV[6] ~= '' then
      local refused, present = is_refused(ARGV[6], meta[3], value_key)
      if refused then
        return { present }
      end
    end
    seq = pcall('INCR', 'sidecache:seq')
  end
  if type(seq) == 'number' and seq > 1 then
    call('PUBLISH', CHANNEL, format('%d delete ', seq) .. ns .. '\n' .. key)
    is_published = true
    local _, exponent = math.frexp(buckets)
    local whole = 2 ^ (exponent - 1)
    local width = PLACES / whole
    if place < (buckets - whole) * width then
      width = width / 2
    end
    local bucket = 'cache_index:' .. ns .. (known[6] or '') .. ':' .. format('%d', place - place % width)
    local size = tonumber(meta[1] or '')
    if known[8] then
      -- A deletion ends the lease of its key.
      call('UNLINK', 'sidecache:lease:' .. id)
    end
    if not size then
      if call('EXISTS', value_key, meta_key) == 0 and pcall('ZSCORE', bucket, key) == false then
        return { 0, seq, 0 }
      end
    -- A deletion first, see `removal.lua`.
    elseif call('EXISTS', value_key) == 1 and pcall('ZREM', bucket, key) == 1 then
      call('UNLINK', value_key, meta_key)
      call('HSET', stats, 'total_keys', format('%d', keys - 1),
        'total_bytes', format('%d', math.max(bytes - size, 0)),
        'charged_bytes', format('%d', math.max(charged - size - #key - ENTRY_OVERHEAD, 0)))
      return { 1, seq, 0 }
    end
  end
end
