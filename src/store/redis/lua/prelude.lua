-- Stands in front of every script that touches entries: names, time, the books and the index.
--
-- ARGV[1] is the namespace. The books of a namespace are read once and written once a script, so
-- that keys, bytes and the version agree with the entries at every moment another client can see.
-- Names are built here and not passed as KEYS: a shard is one Redis, never a Redis Cluster.

local ns = ARGV[1]
local stats = 'cache_stats:' .. ns
local channel = 'sidecache:invalidations'

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = math.floor(now_us / 1000)

-- Lua prints large numbers with 14 digits; ours have up to 16.
local function integer(number)
  return string.format('%.0f', number)
end

local books = redis.call('HMGET', stats,
  'total_keys', 'total_bytes', 'evictions', 'expirations', 'version', 'buckets')
for i = 1, 6 do
  books[i] = tonumber(books[i] or 0)
end
local KEYS_TOTAL, BYTES_TOTAL, EVICTIONS, EXPIRATIONS, VERSION, BUCKETS = 1, 2, 3, 4, 5, 6
books[BUCKETS] = math.max(books[BUCKETS], 1)

-- Versions grow within a namespace and shard even if the clock steps back or a key is deleted.
local function next_version()
  books[VERSION] = math.max(books[VERSION] + 1, now_us)
  return integer(books[VERSION])
end

-- The index. Every key has a place, the first 32 bits of its SHA-1, which never changes. The
-- places are divided into buckets, each a sorted set of its keys by expiry in ms ('+inf': never)
-- under the name of its first place. Small sorted sets are compact (a listpack up to 128 members,
-- https://redis.io/docs/latest/operate/oss_and_stack/management/optimization/memory-optimization/),
-- so there are as many buckets as keep them small: linear hashing (Litwin 1980), over the high
-- bits, which leaves the keys in the order of their places whatever the number of buckets.
local PLACES = 4294967296
local FULL_BUCKET, SPARSE_BUCKET = 32, 4
local index = 'cache_index:' .. ns .. ':'

-- Buckets whose keys expire, each by a moment before which none of them does.
local due = 'cache_due:' .. ns

local function place_of(key)
  return tonumber(string.sub(redis.sha1hex(key), 1, 8), 16)
end

-- The width of buckets at the start of the present round of splits, and where the next is.
local function frontier(buckets)
  local _, exponent = math.frexp(buckets)
  local whole = 2 ^ (exponent - 1)
  local width = PLACES / whole
  return width, (buckets - whole) * width
end

-- First place and width of the bucket around a place.
local function bucket_at(place)
  local width, split_below = frontier(books[BUCKETS])
  if place < split_below then
    width = width / 2
  end
  return math.floor(place / width) * width, width
end

local function bucket_of(key)
  local start = bucket_at(place_of(key))
  return index .. start
end

-- Notes again by when a bucket has to be looked at.
local function refresh_due(start)
  local first = redis.call('ZRANGE', index .. start, 0, 0, 'WITHSCORES')
  if first[2] and first[2] ~= 'inf' then
    redis.call('ZADD', due, first[2], integer(start))
  else
    redis.call('ZREM', due, integer(start))
  end
end

-- Moves members, a list of member and score in turn, from one bucket to another.
local function move(members, from, to)
  for first = 1, #members, 1000 do
    local gone, come = {}, {}
    for i = first, math.min(first + 999, #members), 2 do
      gone[#gone + 1] = members[i]
      come[#come + 1] = members[i + 1]
      come[#come + 1] = members[i]
    end
    redis.call('ZREM', index .. from, unpack(gone))
    redis.call('ZADD', index .. to, unpack(come))
  end
end

local function split_bucket()
  local width, start = frontier(books[BUCKETS])
  local middle = start + width / 2
  local all, upper = redis.call('ZRANGE', index .. start, 0, -1, 'WITHSCORES'), {}
  for i = 1, #all, 2 do
    if place_of(all[i]) >= middle then
      upper[#upper + 1] = all[i]
      upper[#upper + 1] = all[i + 1]
    end
  end
  move(upper, start, middle)
  books[BUCKETS] = books[BUCKETS] + 1
  refresh_due(middle)
end

local function merge_buckets()
  books[BUCKETS] = books[BUCKETS] - 1
  local width, start = frontier(books[BUCKETS])
  local middle = start + width / 2
  move(redis.call('ZRANGE', index .. middle, 0, -1, 'WITHSCORES'), middle, start)
  redis.call('ZREM', due, integer(middle))
  refresh_due(start)
end

-- Keeps the number of buckets in step with that of keys, a few at a time.
local function fit_buckets()
  if books[KEYS_TOTAL] == 0 then
    books[BUCKETS] = 1
    redis.call('UNLINK', due)
  end
  for _ = 1, FULL_BUCKET do
    if books[KEYS_TOTAL] > books[BUCKETS] * FULL_BUCKET then
      split_bucket()
    elseif books[BUCKETS] > 1 and books[KEYS_TOTAL] < books[BUCKETS] * SPARSE_BUCKET then
      merge_buckets()
    else
      return
    end
  end
end

local function save_books()
  fit_buckets()
  redis.call('HSET', stats,
    'total_keys', integer(books[KEYS_TOTAL]), 'total_bytes', integer(books[BYTES_TOTAL]),
    'evictions', integer(books[EVICTIONS]), 'expirations', integer(books[EXPIRATIONS]),
    'version', integer(books[VERSION]), 'buckets', books[BUCKETS])
end

local function untag(key, tags)
  if tags then
    for tag in string.gmatch(tags, '[^\n]+') do
      redis.call('ZREM', 'cache_tag:' .. ns .. ':' .. tag, key)
    end
  end
end

-- Why an entry that is still in the index has no value any more: its time came, or Redis needed
-- the memory.
local function count_loss(score)
  local why = EVICTIONS
  if tonumber(score) <= now_ms then
    why = EXPIRATIONS
  end
  books[why] = books[why] + 1
  return why
end

-- Takes a key out of everything. Returns whether its value was there, and the score it had in the
-- index (its expiry), false when it was in no book. A value goes first: where Redis is out of
-- memory, what follows a deletion in a script is never refused.
local function take_out(key)
  local id = ns .. ':' .. key
  local alive = redis.call('UNLINK', 'cache:' .. id) == 1
  local bucket = bucket_of(key)
  local score = redis.call('ZSCORE', bucket, key)
  if score then
    local meta = redis.call('HMGET', 'cache_meta:' .. id, 'size_bytes', 'tags')
    redis.call('UNLINK', 'cache_meta:' .. id)
    redis.call('ZREM', bucket, key)
    untag(key, meta[2])
    books[KEYS_TOTAL] = books[KEYS_TOTAL] - 1
    books[BYTES_TOTAL] = books[BYTES_TOTAL] - tonumber(meta[1] or 0)
  end
  return alive, score
end

-- Takes up to `most` expired entries out. Returns how many, and whether there may be more.
local function take_expired(most)
  local taken = 0
  local starts = redis.call('ZRANGEBYSCORE', due, '-inf', integer(now_ms), 'LIMIT', 0, most)
  for _, start in ipairs(starts) do
    if taken >= most then
      return taken, true
    end
    local expired = redis.call('ZRANGEBYSCORE', index .. start, '-inf', integer(now_ms), 'LIMIT', 0, most - taken)
    for _, key in ipairs(expired) do
      local _, score = take_out(key)
      count_loss(score)
    end
    taken = taken + #expired
    refresh_due(start)
  end
  return taken, #starts == most
end

-- Tells every instance that its copies of these keys are void. Keys hold no control characters.
local function publish(keys)
  if #keys > 0 then
    redis.call('PUBLISH', channel, ns .. '\n' .. table.concat(keys, '\n'))
  end
end
