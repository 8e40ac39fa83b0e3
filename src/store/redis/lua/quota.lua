-- Stands behind the prelude where entries make room for others.

local SAMPLE = 10

-- What decides between two entries under each policy: the smaller first number goes, then the
-- smaller second. A write is a use, too.
local function rank(policy, meta, score)
  local used_at = math.max(tonumber(meta[1] or 0), tonumber(meta[3] or 0))
  if policy == 'LFU' then
    return tonumber(meta[2] or 0), used_at
  elseif policy == 'FIFO' then
    return tonumber(meta[4] or 0), 0
  elseif policy == 'TTL' then
    return tonumber(score), used_at
  end
  return used_at, 0
end

local is_random = false

-- The entry that the policy gives up, out of a sample, as Redis itself does
-- (https://redis.io/docs/latest/develop/reference/eviction/#apx-lru); nil when there is none but
-- `spared`. Keys lie in the buckets by their hash, so those of a bucket are a sample already.
local function victim(policy, spared)
  if not is_random then
    math.randomseed(now_us % 2147483647)
    is_random = true
  end
  local start, width = bucket_at(math.floor(math.random() * PLACES))
  local sample = {}
  -- Few buckets are empty, as they grow and shrink with the keys.
  for _ = 1, books[BUCKETS] do
    sample = redis.call('ZRANDMEMBER', index .. start, SAMPLE, 'WITHSCORES')
    if #sample > 2 or (#sample == 2 and sample[1] ~= spared) then
      break
    end
    start, width = bucket_at((start + width) % PLACES)
  end
  local chosen, first, second
  for i = 1, #sample, 2 do
    local key = sample[i]
    if key ~= spared then
      local meta = redis.call('HMGET', 'cache_meta:' .. ns .. ':' .. key,
        'last_accessed', 'access_count', 'created_at', 'version')
      local a, b = rank(policy, meta, sample[i + 1])
      if not chosen or a < first or (a == first and b < second) then
        chosen, first, second = key, a, b
      end
    end
  end
  return chosen
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
    local _, score = take_out(out)
    count_loss(score)
    evicted[#evicted + 1] = out
    budget = budget - 1
  end
  return 'fits'
end
