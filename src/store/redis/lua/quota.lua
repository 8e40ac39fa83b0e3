-- Comes after `removal.lua` in scripts that evict entries to make room for others.

local SAMPLE = 16

-- The most buckets that are looked at for a sample, and the most due buckets when looking for the next entry to
-- expire.
local MAX_LOOKS = 64

-- The order of eviction in a sample, by policy: the entry with the smaller first number goes first; if they are equal,
-- the second number decides. A write counts as a use.
local function rank(policy, meta)
  local used_at = math.max(tonumber(meta[1] or 0) or 0, tonumber(meta[3] or 0) or 0)
  if policy == 'LFU' then
    return tonumber(meta[2] or 0) or 0, used_at
  elseif policy == 'FIFO' then
    return tonumber(meta[4] or 0) or 0, 0
  end
  return used_at, 0
end

-- The entry that expires next, but not `spared`; nil if none expires, or if too many buckets were due too early.
local function next_to_expire(spared)
  local number, best, best_score = 0, nil, nil
  for _ = 1, MAX_LOOKS do
    work = work + 0.2
    local bucket = redis.pcall('ZRANGE', due, number, number, 'WITHSCORES')
    if bucket.err then
      is_lost = true
      return nil
    elseif not bucket[1] or bucket[1] == MARK or (best and tonumber(bucket[2]) >= best_score) then
      return best
    end
    local soonest = redis.pcall('ZRANGEBYSCORE', name_of(bucket[1]), '-inf', '(+inf', 'WITHSCORES', 'LIMIT', 0, 2)
    if soonest.err then
      is_lost = true
      return nil
    elseif soonest[2] ~= bucket[2] then
      refresh_due(bucket[1])
    elseif soonest[1] ~= spared then
      return soonest[1]
    else
      number = number + 1
      local score = tonumber(soonest[4])
      if score and (not best or score < best_score) then
        best, best_score = soonest[3], score
      end
    end
  end
  return best
end

local is_random = false

-- The entries that the policy evicts, at most `most`; none if `spared` is the only entry. With policy TTL it is the
-- entry that expires next. With other policies, or if none expires, they are the best of a sample, as in Redis itself
-- (https://redis.io/docs/latest/develop/reference/eviction/#apx-lru). Keys are in buckets by their hash, so the keys
-- of one bucket are already a random sample.
local function victims(policy, spared, most)
  local next_out = policy == 'TTL' and next_to_expire(spared)
  if next_out then
    return { next_out }
  end
  if books.buckets == 0 then
    return {}
  end
  if not is_random then
    math.randomseed(now_us % 2147483647)
    is_random = true
  end
  work = work + 5
  local start, width = bucket_at(math.floor(math.random() * PLACES))
  local sample = {}
  -- If buckets are sparse, one bucket is too small a sample, and the next buckets are added. That alone would empty
  -- the buckets before full ones first, so after 8 buckets in a row the search continues at another random place.
  for look = 1, math.min(books.buckets, MAX_LOOKS) do
    local members = redis.pcall('ZRANDMEMBER', name_of(start), SAMPLE + 1)
    if #members == 0 then
      -- Even the mark is missing.
      is_lost = true
      return {}
    end
    for _, key in ipairs(members) do
      if key ~= MARK and key ~= spared then
        sample[#sample + 1] = key
      end
    end
    if #sample >= SAMPLE / 2 then
      break
    end
    local next_place = look % 8 == 0 and math.floor(math.random() * PLACES) or (start + width) % PLACES
    start, width = bucket_at(next_place)
    work = work + 0.1
  end
  local ranked = {}
  for i, key in ipairs(sample) do
    local meta = redis.pcall('HMGET', 'cache_meta:' .. ns .. ':' .. key,
      'last_accessed', 'access_count', 'created_at', 'version')
    local first, second = rank(policy, meta)
    ranked[i] = { first, second, key }
  end
  table.sort(ranked, function(a, b)
    return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2])
  end)
  local chosen = {}
  -- At most a quarter of the sample, so that only the oldest entries go.
  for i = 1, math.max(math.min(most, #ranked / 4), math.min(#ranked, 1)) do
    chosen[i] = ranked[i][3]
  end
  return chosen
end

-- How many entries of a sample are evicted at once: one, or four if the namespace is far over its limit.
local function at_once(too_much, limit)
  return too_much > limit / 8 and 4 or 1
end

-- How many entries were removed to make room, and whether the reason is a lack of memory on the shard, not the quota.
local made_room = 0
local is_for_memory = false

local function evict(key)
  local alive, score = take_out(key)
  if alive then
    books.evictions = books.evictions + 1
    books.redis_evictions = books.redis_evictions + (is_for_memory and 1 or 0)
  elseif score then
    count_loss(score)
  end
  made_room = made_room + 1
end

-- The most work of one script to make room.
local MAX_WORK = 150

-- Makes room for an entry under `key` that is charged `charge`; the present entry is charged `own`. Expired entries
-- go first, then entries by the policy, whose keys are added to `evicted`. Returns 'fits', 'full', or 'again' if the
-- script has done enough work. An entry that would be alone in the namespace always fits.
local function make_room(limit, policy, key, charge, own, evicted)
  local function too_much()
    local others = books.charged - own
    return others > 0 and others + charge - limit or 0
  end
  if too_much() <= 0 then
    return 'fits'
  end
  local taken, more = take_expired(MAX_WORK)
  if taken > 0 then
    made_room = made_room + taken
    local meta = redis.pcall('HMGET', 'cache_meta:' .. ns .. ':' .. key, 'size_bytes', 'tags')
    own = meta[1] and charge_of(key, meta[2], tonumber(meta[1]) or 0) or 0
  end
  while too_much() > 0 do
    if more or work >= MAX_WORK then
      return 'again'
    end
    local out = policy == 'NONE' and {} or victims(policy, key, at_once(too_much(), limit))
    if #out == 0 then
      -- If there are other entries, the sample found only empty buckets.
      return (policy == 'NONE' or books.keys <= 1) and 'full' or 'again'
    end
    for _, other in ipairs(out) do
      evict(other)
      evicted[#evicted + 1] = other
    end
  end
  return 'fits'
end
