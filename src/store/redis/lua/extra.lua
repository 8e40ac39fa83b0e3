-- The field `extra` of the metadata, absent for ordinary entries; `model/extra.rs` has its form. `expires_at` is the
-- end of an entry's freshness; the entry itself goes when its grace is over, too. Redis' TTL, the index, and the books go
-- by that.

-- Whether an entry says that the source has no such thing, or is kept only in place of errors. It is no present entry
-- for preconditions.
local function is_known_absent(extra)
  local words = extra and ' ' .. extra .. ' '
  return words and (string.find(words, ' a ', 1, true) or string.find(words, ' m0 ', 1, true)) and true or false
end

-- The time at which an entry goes in ms, '0' for never, from the fields of its metadata, which may be missing.
local function goes_at(expires_at, extra)
  local grace = extra and expires_at and expires_at ~= '0' and string.match(extra, 'g(%d+)')
  return grace and string.format('%d', expires_at + grace) or expires_at
end
