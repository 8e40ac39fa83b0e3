-- Lists part of the live keys, in the order of their buckets. ARGV: token, ns, secret, the place to continue from,
-- about how many keys, and the tag that they must have ('' for any).
-- Returns {the place to continue from, 2^32 at the end; a version that no listed key exceeds; the keys; 1 if the index
-- is whole, 0 if part of it is missing, 2 during a repair}, or {name, type} if a key of the index holds another type.
-- A part never ends between two keys with the same place.

local place, count, tag = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local keys = {}
local is_whole = not books.is_in_repair
local pcall = redis.pcall
if foreign_books then
  return foreign_books
elseif books.buckets == 0 then
  place = PLACES
elseif tag ~= '' then
  local tagged = tag_set(tag)
  local size, counted = pcall('ZCARD', tagged), pcall('HMGET', tag_counts, MARK, 't:' .. tag)
  if is_wrong_type(size) or is_wrong_type(counted) then
    return foreign_at(is_wrong_type(size) and tagged or tag_counts)
  end
  -- An entry that vanished stays in the set, and in its count, until it is noticed.
  is_whole = is_whole and size == (tonumber(counted[2] or 0) or 0)
    and (counted[1] ~= false or redis.call('HGET', stats, 'tagged') ~= books.scope)
  local function add(members)
    for i = 1, #members, 2 do
      local bucket = name_of(bucket_at(tonumber(members[i + 1])))
      local score = pcall('ZSCORE', bucket, members[i])
      if type(score) == 'string' and tonumber(score) > now_ms then
        keys[#keys + 1] = members[i]
      elseif not score and not redis.call('ZSCORE', bucket, MARK) then
        is_whole = false
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
    local bucket = name_of(start)
    local live = pcall('ZRANGEBYSCORE', bucket, '(' .. now_text, '+inf')
    if live.err then
      return foreign_at(bucket)
    end
    local has_mark = false
    for _, key in ipairs(live) do
      if key == MARK then
        has_mark = true
      else
        keys[#keys + 1] = key
      end
    end
    is_whole = is_whole and has_mark
    place = start + width
    looks = looks - 1
  end
end
local state = books.is_in_repair and 2 or is_whole and 1 or 0
return { integer(place), integer(math.max(books.version, now_us)), keys, state }
