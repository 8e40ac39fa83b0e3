-- Comes after the fence in scripts that use the bookkeeping of a namespace: names, time and totals.
--
-- ARGV[2] is the namespace, ARGV[3] the fleet's secret for places. A script reads the totals of the namespace once
-- and writes them once, so for other clients keys, bytes and version always agree with the entries. Names are built
-- here instead of being passed as KEYS: a shard is one Redis server, never a Redis Cluster.
--
-- Give a script only the files that it uses: Redis runs the whole text at every call, and each function costs time.

local ns, secret = ARGV[2], ARGV[3]
local stats = 'cache_stats:' .. ns

time = time or redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = (now_us - now_us % 1000) / 1000

-- Lua prints large numbers with 14 digits, but ours have up to 16. Redis prints a floating-point argument ten times
-- as slowly as text, so scripts pass text.
local function integer(number)
  return string.format('%d', number)
end
local now_text = integer(now_ms)

local function is_wrong_type(answer)
  return type(answer) == 'table' and answer.err and string.find(answer.err, 'WRONGTYPE', 1, true)
end

-- The name and type of a key of ours that holds another type.
local function foreign_at(name)
  return { name, redis.call('TYPE', name).ok }
end

known = known or redis.pcall('HMGET', stats, 'total_keys', 'total_bytes', 'version', 'buckets', 'charged_bytes', 'scope', 'repair',
  'lease_floor', 'tombstones')
-- The name and type if the key of the totals holds another type: then nothing can be counted.
local foreign_books
if known.err then
  if not is_wrong_type(known) then
    return known
  end
  foreign_books = foreign_at(stats)
  known = {}
end

-- The last three fields count what this script evicts and expires.
local books = {
  keys = tonumber(known[1] or 0) or 0, bytes = tonumber(known[2] or 0) or 0, charged = tonumber(known[5] or 0) or 0,
  version = tonumber(known[3] or 0) or 0, buckets = tonumber(known[4] or 0) or 0,
  -- The first part of the names of index, tags and due buckets: the namespace, followed by a suffix that is new each
  -- time part of them was lost.
  scope = ns .. (known[6] or ''),
  -- Whether a repair is still looking for entries of a lost index.
  is_in_repair = known[7] ~= false and known[7] ~= nil,
  -- Whether more was lost during the repair, so that it must be done again.
  is_again = known[7] == '2',
  evictions = 0, redis_evictions = 0, expirations = 0,
}

-- What a quota charges for an entry: its value, its key, its tags, and a fixed overhead of Redis.
local function charge_of(key, tags, size)
  return size + #key + #(tags or '') + ENTRY_OVERHEAD
end

-- Versions of a namespace on a shard always grow, even if the clock steps back or a key is deleted.
local function next_version()
  local version = books.version + 1
  if version < now_us then
    version = now_us
  end
  books.version = version
  return version
end

-- The work of this script so far, in units of about 10 us, for scripts that must stop in time.
local work = 0

-- Counts why an indexed entry has no value any more: it expired, or Redis needed the memory.
local function count_loss(score)
  if (tonumber(score) or 0) <= now_ms then
    books.expirations = books.expirations + 1
    return 'expirations'
  end
  books.evictions = books.evictions + 1
  books.redis_evictions = books.redis_evictions + 1
  return 'evictions'
end

-- Tells all instances that copies of these keys are void. Scripts publish before they write where possible: if the
-- right to publish is missing, the script then fails before anything has changed. Nobody sees the moment between the
-- two, because Redis runs one script at a time.
--
-- The message is the number of the change, the kind of change and the namespace, and then the keys, one a line.
-- `number` is absent if the script has not counted this change yet. The number 0 says that the count is lost.
local function publish(kind, keys, number)
  if #keys > 0 then
    number = number or count_change(true)
    number = type(number) == 'number' and number or 0
    redis.call('PUBLISH', CHANNEL, integer(number) .. ' ' .. kind .. ' ' .. ns .. '\n' .. table.concat(keys, '\n'))
  end
end
