-- Comes after `constants.lua`, and after the plain part, in scripts that change what readers see: the count of changes.
--
-- `sidecache:seq` grows by one with every message about changes, and each message says its number. So an instance that
-- misses a number knows that a message was lost, and a number says how far somebody has come (see `model::Position`).
-- The key has no TTL. If it is gone, the shard gets a new incarnation (see `write_ring.lua`).

-- Counts a change and returns its number. Returns an error reply instead if the script must not change anything: Redis
-- accepts no writes at present, or the count is lost. A script that removes entries sets `frees`.
local function count_change(frees)
  -- The plain part may have found already that the count is lost.
  local number = seq == 1 and 1 or redis.pcall('INCR', 'sidecache:seq')
  if frees and type(number) == 'table' and string.find(number.err, 'OOM', 1, true) then
    -- A deletion first, see `removal.lua`.
    redis.call('UNLINK', 'sidecache:none')
    number = redis.pcall('INCR', 'sidecache:seq')
  end
  if number == 1 or (type(number) == 'table' and string.find(number.err, 'WRONGTYPE', 1, true)) then
    redis.call('UNLINK', 'sidecache:seq')
    return redis.error_reply('FENCED the count of changes is lost')
  end
  return number
end
