-- Stands in front of the scripts that work with the books of a namespace: names, time, the books.
--
-- ARGV[1] is the namespace. The books of a namespace are read once and written once a script, so
-- that keys, bytes and the version agree with the entries at every moment another client can see.
-- Names are built here and not passed as KEYS: a shard is one Redis, never a Redis Cluster.
--
-- What a script does not use it should not be given: Redis runs all of it every time, and every
-- function costs.

local ns = ARGV[1]
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

-- What is counted as evicted and expired is what this script adds.
local known = redis.call('HMGET', stats, 'total_keys', 'total_bytes', 'version', 'buckets')
local books = {
  keys = (known[1] or 0) + 0, bytes = (known[2] or 0) + 0, version = (known[3] or 0) + 0, buckets = (known[4] or 1) + 0,
  evictions = 0, expirations = 0,
}

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

local function untag(key, tags)
  if tags then
    for tag in string.gmatch(tags, '[^\n]+') do
      redis.call('ZREM', 'cache_tag:' .. ns .. ':' .. tag, key)
      work = work + 0.2
    end
  end
end

-- Why an entry that is still in the index has no value any more: its time came, or Redis needed
-- the memory.
local function count_loss(score)
  local why = 'evictions'
  if tonumber(score) <= now_ms then
    why = 'expirations'
  end
  books[why] = books[why] + 1
  return why
end

-- Tells every instance that its copies of these keys are void. Keys hold no control characters.
local function publish(keys)
  if #keys > 0 then
    redis.call('PUBLISH', channel, ns .. '\n' .. table.concat(keys, '\n'))
  end
end
