-- Stands behind the prelude where entries make room for others.

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

-- The entry that expires next, `spared` excepted; nil when none does, or none was found soon.
local function next_to_expire(spared)
  local number = 0
  for _ = 1, SAMPLE do
    local bucket = redis.call('ZRANGE', due, number, number, 'WITHSCORES')
    if not bucket[1] then
      return nil
    end
    local soonest = redis.call('ZRANGEBYSCORE', name_of(bucket[1]), '-inf', '(+inf', 'WITHSCORES', 'LIMIT', 0, 2)
    if soonest[2] ~= bucket[2] then
      -- It was noted too early, which happens; too late would not.
      refresh_due(bucket[1])
    elseif soonest[1] ~= spared then
      return soonest[1]
    elseif soonest[3] then
      return soonest[3]
    else
      number = number + 1
    end
  end
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
  local start, width = bucket_at(math.floor(math.random() * PLACES))
  local sample = {}
  -- Few buckets are empty, as they grow and shrink with the keys.
  for _ = 1, books[BUCKETS] do
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

local function evict(key)
  local alive, score = take_out(key)
  if alive then
    books[EVICTIONS] = books[EVICTIONS] + 1
  elseif score then
    count_loss(score)
  end
end

-- Entries that one script may take out to make room.
local BUDGET = 100
local budget = BUDGET

-- Makes room for `size` bytes under `key`. Expired entries go first, then those that the policy
-- names; the latters' keys are added to `evicted`. Returns 'fits', 'full', or 'again' when the
-- budget is spent. An entry always fits where it would be alone.
local function make_room(limit, policy, key, size, evicted)
  local function fits()
    local own = tonumber(redis.call('HGET', 'cache_meta:' .. ns .. ':' .. key, 'size_bytes') or 0)
    local others = books[BYTES_TOTAL] - own
    return others <= 0 or others + size <= limit
  end
  if fits() then
    return 'fits'
  end
  local taken, more = take_expired(budget)
  budget = budget - taken
  while not fits() do
    if budget <= 0 or more then
      return 'again'
    end
    local out = policy ~= 'NONE' and victim(policy, key)
    if not out then
      return 'full'
    end
    evict(out)
    evicted[#evicted + 1] = out
    budget = budget - 1
  end
  return 'fits'
end
