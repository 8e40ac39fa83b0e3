-- Comes after `index.lua` in scripts that write or remove entries: the source versions of entries, and tombstones.
--
-- A source version is the source's own count of its changes (`docs/LOOP.md`), the field `source_version` of the
-- metadata. A write with a smaller one is refused. A deletion leaves the version in a *tombstone* until a time:
-- `sidecache:tombstones:{ns}` has key -> version, `sidecache:tombstones_due:{ns}` has key -> its end in ms. Neither has
-- a TTL, because Redis evicts keys with a TTL before others.
--
-- The field `tombstones` of the books is their number. A namespace that never had a source version does not have the
-- field, and then `set_plain.lua` and `delete_plain.lua` need not look for versions. If the books are lost, nobody
-- knows whether there are source versions, so the field is there from then on (`save_books`).

local tombs, tombs_due = 'sidecache:tombstones:' .. ns, 'sidecache:tombstones_due:' .. ns
local tomb_count = tonumber(known[9] or '')
if not tomb_count and not known[3] and not foreign_books then
  local found = redis.pcall('HLEN', tombs)
  tomb_count = type(found) == 'number' and (found > 0 or not is_new) and found or nil
end
local tombs_before = known[9] and tomb_count

-- The source version that preconditions name, nil if none.
local function version_of(preconditions)
  return string.match(preconditions, 's(%d+)')
end

-- Whether the source version `a` is smaller than `b`. Both are text without leading zeros: Lua's numbers are exact
-- only up to 2^53.
local function is_smaller(a, b)
  return #a < #b or (#a == #b and a < b)
end

-- The source version in the tombstone of a key, false if there is none.
local function tombstone_of(key)
  local version = tomb_count and tomb_count > 0 and redis.pcall('HGET', tombs, key)
  local ends = type(version) == 'string' and redis.pcall('ZSCORE', tombs_due, key)
  return type(ends) == 'string' and tonumber(ends) > now_ms and version
end

-- Whether the source version `version` is older than the present one of a key. `meta` is the fields `version` and
-- `source_version` of the metadata. Also returns the answer of the script for it.
local function is_outdated(version, key, meta)
  local present = meta[1] and redis.call('EXISTS', 'cache:' .. ns .. ':' .. key) == 1 and meta[1]
  local newest = tombstone_of(key)
  if present then
    newest = meta[2]
  end
  return newest and is_smaller(version, newest) or false, 'newer:' .. (present or '0')
end

local function remove_tombstone(key)
  if tomb_count and tomb_count > 0 and redis.pcall('HDEL', tombs, key) == 1 then
    redis.pcall('ZREM', tombs_due, key)
    tomb_count = tomb_count - 1
  end
end

-- Saves the number of tombstones. Comes after `save_books`, which knows whether the namespace has entries.
local function save_tombstones()
  if foreign_books or not tomb_count then
    return
  end
  if tomb_count == 0 and books.buckets == 0 and not books.is_in_repair then
    redis.call('HDEL', stats, 'tombstones')
  elseif tomb_count ~= tombs_before then
    redis.call('HSET', stats, 'tombstones', integer(tomb_count))
  end
end
