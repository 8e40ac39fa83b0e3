-- Stands behind the removal where entries make room for others.

local SAMPLE = 16

-- What decides between two entries of a sample under each policy: the smaller first number goes,
-- then the smaller second. A write is a use, too.
local function rank(policy, meta)
  local used_at = math.max(tonumber(meta[1] or 0), tonumber(meta[3] or 0))
  if policy == 'LFU' then
    return tonumber(meta[2] or 0), used_at
  elseif policy == 'FIFO' then
    return tonumber(meta[4] or 0), 0
  end
  return used_at, 0
end

-- The entry that expires next, `spared` excepted; nil when none does, or when too many buckets were
-- noted too early.
local function next_to_expire(spared)
  local number, best, best_score = 0, nil, nil
  for _ = 1, 100 do
    work = work + 0.2
    local bucket = redis.call('ZRANGE', due, number, number, 'WITHSCORES')
    if not bucket[1] or (best and tonumber(bucket[2]) >= best_score) then
      return best
    end
    local soonest = redis.call('ZRANGEBYSCORE', name_of(bucket[1]), '-inf', '(+inf', 'WITHSCORES', 'LIMIT', 0, 2)
    if soonest[2] ~= bucket[2] then
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

-- The entry that the policy gives up; nil when there is none but `spared`. By expiry it is known,
-- otherwise it is the best out of a sample, as with Redis itself
-- (https://redis.io/docs/latest/develop/reference/eviction/#apx-lru). Keys lie in the buckets by
-- their hash, so those of a bucket are a sample already.
local function victim(policy, spared)
  local next_out = policy == 'TTL' and next_to_expire(spared)
  if next_out then
    return next_out
  end
  if not is_random then
    math.randomseed(now_us % 2147483647)
    is_random = true
  end
  work = work + 5
  local start, width = bucket_at(math.floor(math.random() * PLACES))
  local sample = {}
  -- Few buckets are empty, as they grow and shrink with the keys.
  for _ = 1, books.buckets do
    sample = redis.call('ZRANDMEMBER', name_of(start), SAMPLE)
    if #sample > 1 or (#sample == 1 and sample[1] ~= spared) then
      break
    end
    start, width = bucket_at((start + width) % PLACES)
  end
  local chosen, first, second
  for _, key in ipairs(sample) do
    if key ~= spared then
      local meta = redis.call('HMGET', 'cache_meta:' .. ns .. ':' .. key,
        'last_accessed', 'access_count', 'created_at', 'version')
      local a, b = rank(policy, meta)
      if not chosen or a < first or (a == first and b < second) then
        chosen, first, second = key, a, b
      end
    end
  end
  return chosen
end

-- Entries that went to make room.
local made_room = 0

local function evict(key)
  local alive, score = take_out(key)
  if alive then
    books.evictions = books.evictions + 1
  elseif score then
    count_loss(score)
  end
  made_room = made_room + 1
end

-- The work that one script may do to make room.
local MOST_WORK = 150

-- Makes room for `size` bytes under `key`, which has `own` now. Expired entries go first, then those that the policy
-- names; the latters' keys are added to `evicted`. Returns 'fits', 'full', or 'again' when enough work
-- is done. An entry always fits where it would be alone.
local function make_room(limit, policy, key, size, own, evicted)
  local function fits()
    local others = books.bytes - own
    return others <= 0 or others + size <= limit
  end
  if fits() then
    return 'fits'
  end
  local taken, more = take_expired(MOST_WORK)
  if taken > 0 then
    made_room = made_room + taken
    own = tonumber(redis.call('HGET', 'cache_meta:' .. ns .. ':' .. key, 'size_bytes') or 0)
  end
  while not fits() do
    if more or work >= MOST_WORK then
      return 'again'
    end
    local out = policy ~= 'NONE' and victim(policy, key)
    if not out then
      return 'full'
    end
    evict(out)
    evicted[#evicted + 1] = out
  end
  return 'fits'
end
