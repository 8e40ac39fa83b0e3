-- Stands behind the prelude where keys come and go: the index.
--
-- Every key has a place, the first 32 bits of its SHA-1, which never changes. The places are divided
-- into buckets, each a sorted set of its keys by expiry in ms ('+inf': never) under the name of its
-- first place. Small sorted sets are compact (a listpack up to 128 members,
-- https://redis.io/docs/latest/operate/oss_and_stack/management/optimization/memory-optimization/),
-- so there are as many buckets as keep them small: linear hashing (Litwin 1980), over the high bits,
-- which leaves the keys in the order of their places whatever the number of buckets.

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
  local width, split_below = frontier(books.buckets)
  if place < split_below then
    width = width / 2
  end
  return place - place % width, width
end

-- Lua writes a number slowly, and the keys of one bucket often come together.
local last_start, last_text

-- The text of a bucket's first place, which ends the name of its Redis key.
local function text_of(start)
  if start ~= last_start then
    last_start, last_text = start, integer(start)
  end
  return last_text
end

-- The Redis key of the bucket that begins at a place.
local function name_of(start)
  return index .. text_of(start)
end

-- Keeps the number of buckets in step with that of keys, a few at a time; returns at once where it is.
local function fit_buckets()
  local keys, buckets = books.keys, books.buckets
  if keys == 0 then
    books.buckets = 1
    redis.call('UNLINK', due)
    return
  elseif keys <= buckets * FULL_BUCKET and (buckets <= 1 or keys >= buckets * SPARSE_BUCKET) then
    return
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
      redis.call('ZREM', name_of(from), unpack(gone))
      redis.call('ZADD', name_of(to), unpack(come))
    end
    local first = redis.call('ZRANGE', name_of(to), 0, 0, 'WITHSCORES')
    if first[2] and first[2] ~= 'inf' then
      redis.call('ZADD', due, first[2], integer(to))
    end
  end

  for _ = 1, FULL_BUCKET do
    if books.keys > books.buckets * FULL_BUCKET then
      local width, start = frontier(books.buckets)
      local middle = start + width / 2
      local all, upper = redis.call('ZRANGE', name_of(start), 0, -1, 'WITHSCORES'), {}
      for i = 1, #all, 2 do
        if place_of(all[i]) >= middle then
          upper[#upper + 1] = all[i]
          upper[#upper + 1] = all[i + 1]
        end
      end
      move(upper, start, middle)
      books.buckets = books.buckets + 1
    elseif books.buckets > 1 and books.keys < books.buckets * SPARSE_BUCKET then
      books.buckets = books.buckets - 1
      local width, start = frontier(books.buckets)
      local middle = start + width / 2
      move(redis.call('ZRANGE', name_of(middle), 0, -1, 'WITHSCORES'), middle, start)
      redis.call('ZREM', due, integer(middle))
    else
      return
    end
  end
end

local keys_before, bytes_before, buckets_before = books.keys, books.bytes, books.buckets

-- Writes what has changed; of writes that replaced as many bytes only the version.
local function save_books()
  fit_buckets()
  local version = integer(books.version)
  if books.keys == keys_before and books.bytes == bytes_before then
    redis.call('HSET', stats, 'version', version)
  else
    redis.call('HSET', stats, 'version', version,
      'total_keys', integer(books.keys), 'total_bytes', integer(books.bytes))
  end
  if books.buckets ~= buckets_before then
    redis.call('HSET', stats, 'buckets', integer(books.buckets))
  end
  if books.evictions > 0 then
    redis.call('HINCRBY', stats, 'evictions', integer(books.evictions))
  end
  if books.expirations > 0 then
    redis.call('HINCRBY', stats, 'expirations', integer(books.expirations))
  end
end
