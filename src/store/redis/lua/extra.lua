-- The field `extra` of the metadata, absent for ordinary entries; `model/extra.rs` has its form. `expires_at` is the
-- end of an entry's freshness. The entry goes at the end of its grace, which is also the time for Redis' TTL, the index
-- and the books.

-- Whether an entry counts as absent for changes: it says that the source has no such thing, or it is kept only in place
-- of errors.
local function counts_as_absent(extra)
  local words = extra and ' ' .. extra .. ' '
  return words and (string.find(words, ' a ', 1, true) or string.find(words, ' m0 ', 1, true)) and true or false
end

-- The time at which an entry goes in ms, '0' for never, from the fields of its metadata, which may be missing.
local function goes_at(expires_at, extra)
  local grace = extra and expires_at and expires_at ~= '0' and string.match(extra, 'g(%d+)')
  return grace and string.format('%d', expires_at + grace) or expires_at
end
