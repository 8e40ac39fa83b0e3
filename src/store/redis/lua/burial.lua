-- Comes after `tombstones.lua` in scripts that leave or remove tombstones.

-- The most tombstones of a namespace on a shard; `embedded/tombstones.rs` has the same limit.
local MAX_TOMBSTONES = 16384

-- How many tombstones this script found lost, or removed before their time to make room for others.
local tombs_dropped = 0

-- Gives up all tombstones of the namespace.
local function drop_tombstones()
  redis.call('UNLINK', tombs, tombs_due)
  tombs_dropped = tombs_dropped + (tomb_count or 0)
  tomb_count = tomb_count and 0
end

-- A person, or Redis' eviction, may have removed one of the two keys, or put another type in its place.
local function check_tombstones()
  local found, ends = redis.pcall('HLEN', tombs), redis.pcall('ZCARD', tombs_due)
  if type(found) ~= 'number' or found ~= ends then
    drop_tombstones()
  elseif tomb_count and found ~= tomb_count then
    tombs_dropped = tombs_dropped + math.max(tomb_count - found, 0)
    tomb_count = found
  end
end
if tomb_count then
  check_tombstones()
end

-- Removes up to `most` tombstones whose time is over. Returns whether there may be more.
local function prune_tombstones(most)
  if not tomb_count or tomb_count == 0 then
    return false
  end
  local over = redis.call('ZRANGEBYSCORE', tombs_due, '-inf', now_text, 'LIMIT', 0, most)
  for _, key in ipairs(over) do
    remove_tombstone(key)
  end
  return #over == most
end

-- Leaves a tombstone. If there are too many, the one that ends first makes room. Comes after a deletion, see
-- `removal.lua`.
local function bury(key, version, ttl_ms)
  if not tomb_count then
    tomb_count = 0
    check_tombstones()
  end
  prune_tombstones(2)
  if tomb_count >= MAX_TOMBSTONES and redis.call('HEXISTS', tombs, key) == 0 then
    remove_tombstone(redis.call('ZRANGE', tombs_due, 0, 0)[1])
    tombs_dropped = tombs_dropped + 1
  end
  tomb_count = tomb_count + redis.call('HSET', tombs, key, version)
  redis.call('ZADD', tombs_due, integer(now_ms + ttl_ms), key)
end
