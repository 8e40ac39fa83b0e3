-- The index. Comes after `prelude.lua` in scripts that add, remove or list keys.
--
-- Every key has a place, the first 32 bits of a SHA-1 over the fleet's secret and the key. It never changes. Without
-- the secret, nobody can choose many keys with the same place. The places are divided into buckets. A bucket is a
-- sorted set of its keys by expiry in ms ('+inf': never), and its name ends with its first place. Small sorted sets
-- are compact (a listpack up to 128 members,
-- https://redis.io/docs/latest/operate/oss_and_stack/management/optimization/memory-optimization/), so the number of
-- buckets grows and shrinks to keep them small. This is linear hashing (Litwin 1980) over the high bits, so the order
-- of the buckets is always the order of the places.
-- With about 32 keys in each bucket this takes a third of the memory of one large sorted set.
--
-- Parts of the index may vanish: a person deletes a key, or Redis evicts it. So every bucket holds an empty member,
-- the *mark*, and so does the set of due buckets. If a mark is missing, part of the index is lost. Then a new, empty
-- *scope* with new names begins, and a walk (`repair.rs`) finds the entries again.

local MARK = ''

local index, due, tag_counts

local function name_scope()
  index = 'cache_index:' .. books.scope .. ':'
  -- The buckets with keys that expire. The score is a time before which no key of the bucket expires.
  due = 'cache_due:' .. books.scope
  -- The number of keys with each tag, which shows whether a tag's set is complete.
  tag_counts = 'cache_tags:' .. books.scope
end
name_scope()

local function tag_set(tag)
  return 'cache_tag:' .. books.scope .. ':' .. tag
end

-- Begins a new scope because part of the index was lost. Entries stay readable, but until the walk has found them
-- they are missing from index and totals.
local has_new_scope = false
local function begin_scope()
  has_new_scope = true
  books.scope = ns .. '@' .. integer(now_us)
  books.keys, books.bytes, books.charged, books.buckets = 0, 0, 0, 0
  books.version = math.max(books.version, now_us)
  books.is_in_repair = true
  name_scope()
end

-- Set when a script finds that index or totals do not agree with the entries on the shard.
local is_lost = false

-- Whether the namespace has no bookkeeping yet. `sidecache:fence` holds the namespaces that have some, which
-- distinguishes a new namespace from one whose bookkeeping was lost.
local is_new = false
if not known[3] and not foreign_books then
  is_new = redis.call('SISMEMBER', KEYS[1], 'n:' .. ns) == 0
  if not is_new then
    begin_scope()
  end
end

local function place_of(key)
  return tonumber(string.sub(redis.sha1hex(secret .. key), 1, 8), 16)
end

-- The width of a bucket at the start of the present round of splits, and the first place of the bucket to split next.
local function frontier(buckets)
  local _, exponent = math.frexp(buckets)
  local whole = 2 ^ (exponent - 1)
  local width = PLACES / whole
  return width, (buckets - whole) * width
end

-- First place and width of the bucket that contains a place.
local function bucket_at(place)
  local width, split_below = frontier(math.max(books.buckets, 1))
  if place < split_below then
    width = width / 2
  end
  return place - place % width, width
end

-- A cache for one number: Lua formats numbers slowly, and consecutive keys are often in the same bucket.
local last_start, last_text

-- The first place of a bucket as text, which ends the name of its Redis key.
local function text_of(start)
  if start ~= last_start then
    last_start, last_text = start, integer(start)
  end
  return last_text
end

-- The Redis key of the bucket with this first place.
local function name_of(start)
  return index .. text_of(start)
end

-- Creates the first bucket; returns an error if a key that it needs holds another type.
local function begin_index()
  local made = redis.pcall('ZADD', name_of(0), '+inf', MARK)
  if type(made) == 'table' then
    return made
  end
  made = redis.pcall('ZADD', due, '+inf', MARK)
  if type(made) == 'table' then
    redis.call('UNLINK', name_of(0))
    return made
  end
  books.buckets = 1
end

-- Removes the rest of the index of a namespace without keys.
local function end_index()
  local names = { due, tag_counts, name_of(0) }
  for number = 1, books.buckets - 1 do
    local width, start = frontier(number)
    names[#names + 1] = name_of(start + width / 2)
    if #names >= 1000 then
      redis.call('UNLINK', unpack(names))
      names = {}
    end
  end
  if #names > 0 then
    redis.call('UNLINK', unpack(names))
  end
  books.buckets = 0
end

-- Adjusts the number of buckets to the number of keys, a few at a time. Usually there is nothing to do.
local function fit_buckets()
  local keys, buckets = books.keys, books.buckets
  if keys <= 0 then
    if buckets > 0 then
      end_index()
    end
    return
  elseif keys <= buckets * FULL_BUCKET and (buckets <= 1 or keys >= buckets * SPARSE_BUCKET) then
    return
  end

  -- Moves members from one bucket to another. `members` is a list of member, score, member, score, ...
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
      redis.pcall('ZADD', due, first[2], integer(to))
    end
  end

  -- The members of a bucket without its mark, as a list of member, score, ...; nil if its key holds another type.
  local function members_of(start)
    local all, members = redis.pcall('ZRANGE', name_of(start), 0, -1, 'WITHSCORES'), {}
    if all.err then
      return nil
    end
    for i = 1, #all, 2 do
      if all[i] ~= MARK then
        members[#members + 1] = all[i]
        members[#members + 1] = all[i + 1]
      end
    end
    return members
  end

  for _ = 1, FULL_BUCKET do
    if books.keys > books.buckets * FULL_BUCKET then
      local width, start = frontier(books.buckets)
      local middle = start + width / 2
      local all, upper = members_of(start), {}
      if not all or is_wrong_type(redis.pcall('ZADD', name_of(middle), '+inf', MARK)) then
        return
      end
      for i = 1, #all, 2 do
        if place_of(all[i]) >= middle then
          upper[#upper + 1] = all[i]
          upper[#upper + 1] = all[i + 1]
        end
      end
      move(upper, start, middle)
      books.buckets = books.buckets + 1
    elseif books.buckets > 1 and books.keys < books.buckets * SPARSE_BUCKET then
      local width, start = frontier(books.buckets - 1)
      local middle = start + width / 2
      local members = members_of(middle)
      if not members or not members_of(start) then
        return
      end
      move(members, middle, start)
      redis.call('UNLINK', name_of(middle))
      redis.pcall('ZREM', due, integer(middle))
      books.buckets = books.buckets - 1
    else
      return
    end
  end
end

local keys_before, bytes_before, charged_before = books.keys, books.bytes, books.charged
local buckets_before = books.buckets

-- Saves the changed fields. If keys and bytes are as before, only the version is written.
local function save_books()
  if foreign_books then
    return
  end
  -- If more is lost during a repair, the repair is done once more afterwards. With a new scope each time it would
  -- never end.
  local is_again = is_lost and not has_new_scope and books.is_in_repair
  if is_lost and not has_new_scope and not is_again then
    begin_scope()
  end
  if has_new_scope then
    -- Delete first, see `removal.lua`.
    redis.call('UNLINK', 'sidecache:none')
  end
  -- Tolerates a damaged index: the totals must be saved in any case.
  fit_buckets()
  books.keys, books.bytes, books.charged = math.max(books.keys, 0), math.max(books.bytes, 0), math.max(books.charged, 0)
  local version = integer(books.version)
  if books.keys == keys_before and books.bytes == bytes_before and books.charged == charged_before
    and not is_new and not has_new_scope then
    redis.call('HSET', stats, 'version', version)
  else
    redis.call('HSET', stats, 'version', version, 'total_keys', integer(books.keys),
      'total_bytes', integer(books.bytes), 'charged_bytes', integer(books.charged))
  end
  if books.buckets ~= buckets_before then
    redis.call('HSET', stats, 'buckets', integer(books.buckets))
    if books.buckets == 0 and not has_new_scope then
      -- No keys are left under the names of the scope.
      redis.call('HDEL', stats, 'tagged')
      if not books.is_in_repair then
        redis.call('HDEL', stats, 'scope')
      end
    end
  end
  if is_new then
    redis.call('SADD', KEYS[1], 'n:' .. ns)
  end
  if is_again then
    redis.call('HSET', stats, 'repair', '2')
  end
  if has_new_scope then
    redis.call('HSET', stats, 'scope', string.sub(books.scope, #ns + 1), 'repair', '1',
      'buckets', integer(books.buckets))
    if not known[3] then
      -- It is not known any more whether there are source versions, see `tombstones.lua`.
      local tombstones = redis.pcall('HLEN', 'sidecache:tombstones:' .. ns)
      redis.call('HSET', stats, 'tombstones', integer(type(tombstones) == 'number' and tombstones or 0))
    end
  end
  if books.evictions > 0 then
    redis.call('HINCRBY', stats, 'evictions', integer(books.evictions))
  end
  if books.redis_evictions > 0 then
    redis.call('HINCRBY', stats, 'redis_evictions', integer(books.redis_evictions))
  end
  if books.expirations > 0 then
    redis.call('HINCRBY', stats, 'expirations', integer(books.expirations))
  end
end
