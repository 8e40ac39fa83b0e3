-- A part of the live keys, in the order of their buckets. ARGV: ns, the place to go on from, about
-- how many keys, and the tag they have ('' for any).
-- Returns {the place to go on from, 2^32 at the end; the version before which all of them were
-- written; the keys}. A part never ends between two keys of one place.

local place, count, tag = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local keys = {}
if tag ~= '' then
  local tagged = 'cache_tag:' .. ns .. ':' .. tag
  local function add(members)
    for i = 1, #members, 2 do
      local start = bucket_at(tonumber(members[i + 1]))
      if tonumber(redis.call('ZSCORE', name_of(start), members[i]) or 0) > now_ms then
        keys[#keys + 1] = members[i]
      end
    end
  end
  local members = redis.call('ZRANGEBYSCORE', tagged, place, '+inf', 'WITHSCORES', 'LIMIT', 0, count)
  if #members < 2 * count then
    place = PLACES
    add(members)
  else
    local last = members[#members]
    while members[#members] == last do
      members[#members] = nil
      members[#members] = nil
    end
    add(members)
    add(redis.call('ZRANGEBYSCORE', tagged, last, last, 'WITHSCORES'))
    place = tonumber(last) + 1
  end
else
  local looks = count
  while place < PLACES and #keys < count and looks > 0 do
    local start, width = bucket_at(place)
    for _, key in ipairs(redis.call('ZRANGEBYSCORE', name_of(start), '(' .. now_text, '+inf')) do
      keys[#keys + 1] = key
    end
    place = start + width
    looks = looks - 1
  end
end
return { integer(place), integer(math.max(books.version, now_us)), keys }
