-- Stands behind the fence in front of the scripts that work with the books of a namespace: names, time, books.
--
-- ARGV[2] is the namespace, ARGV[3] the fleet's secret for places. The books of a namespace are read once and
-- written once a script, so that keys, bytes and the version agree with the entries at every moment another
-- client can see. Names are built here and not passed as KEYS: a shard is one Redis, never a Redis Cluster.
--
-- What a script does not use it should not be given: Redis runs all of it every time, and every function costs.

local ns, secret = ARGV[2], ARGV[3]
local stats = 'cache_stats:' .. ns
local channel = 'sidecache:invalidations'

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = (now_us - now_us % 1000) / 1000

-- Lua prints large numbers with 14 digits; ours have up to 16. As a floating-point number one is
-- printed ten times as slowly, so scripts hand over text.
local function integer(number)
  return string.format('%d', number)
end
local now_text = integer(now_ms)

local function is_wrong_type(answer)
  return type(answer) == 'table' and answer.err and string.find(answer.err, 'WRONGTYPE', 1, true)
end

-- A key of ours that holds another type than ours: its name and type.
local function foreign_at(name)
  return { name, redis.call('TYPE', name).ok }
end

local known = redis.pcall('HMGET', stats,
  'total_keys', 'total_bytes', 'version', 'buckets', 'charged_bytes', 'scope', 'repair')
-- What stands in place of the books, if that is of another type: nothing can be counted then.
local foreign_books
if known.err then
  if not is_wrong_type(known) then
    return known
  end
  foreign_books = foreign_at(stats)
  known = {}
end

-- What is counted as evicted and expired is what this script adds.
local books = {
  keys = tonumber(known[1] or 0) or 0, bytes = tonumber(known[2] or 0) or 0, charged = tonumber(known[5] or 0) or 0,
  version = tonumber(known[3] or 0) or 0, buckets = tonumber(known[4] or 0) or 0,
  -- Under which scope the index, the tags and the due buckets have their names: the namespace, and behind it an
  -- ending for each time that part of them was lost.
  scope = ns .. (known[6] or ''),
  -- Whether a walk still has to find entries that a lost index held.
  is_in_repair = known[7] ~= false and known[7] ~= nil,
  -- Whether more was lost meanwhile, so that it has to be done again.
  is_again = known[7] == '2',
  evictions = 0, redis_evictions = 0, expirations = 0,
}

-- What a quota charges for an entry: its value, its key, its tags and what Redis needs beside them, see
-- `model::charge`.
local ENTRY_OVERHEAD = 384
local function charge_of(key, tags, size)
  return size + #key + #(tags or '') + ENTRY_OVERHEAD
end

-- Versions grow within a namespace and shard even if the clock steps back or a key is deleted.
local function next_version()
  local version = books.version + 1
  if version < now_us then
    version = now_us
  end
  books.version = version
  return version
end

-- What a script has done so far, in units of about 10 us, where it must stop in time.
local work = 0

-- Why an entry that is still in the index has no value any more: its time came, or Redis needed the memory.
local function count_loss(score)
  if (tonumber(score) or 0) <= now_ms then
    books.expirations = books.expirations + 1
    return 'expirations'
  end
  books.evictions = books.evictions + 1
  books.redis_evictions = books.redis_evictions + 1
  return 'evictions'
end

-- Tells every instance that copies of these keys are void. Where it can, a script publishes before it writes:
-- where the right to publish is missing it then fails before anything has changed. Nobody sees a moment between
-- the two, as Redis runs nothing else meanwhile.
local function publish(keys)
  if #keys > 0 then
    redis.call('PUBLISH', channel, ns .. '\n' .. table.concat(keys, '\n'))
  end
end
