-- Comes after `tags.lua` in scripts that add entries or change their tags.

-- Finds the first tag whose set, or the tag counts, hold another type; nil if there is none.
local function foreign_tag(tags)
  for tag in string.gmatch(tags, '[^\n]+') do
    for _, needed in ipairs({ { tag_set(tag), 'zset' }, { tag_counts, 'hash' } }) do
      local found = redis.call('TYPE', needed[1]).ok
      if found ~= 'none' and found ~= needed[2] then
        return { needed[1], found }
      end
    end
  end
end

-- Adds a key to the index. Returns how many members were added; nil and {name, type} if a key of the index holds
-- another type; nil and the error if Redis accepts no writes at present, because then it refuses the first write of a
-- script.
local function put_in_index(place, score, key, due_by, old_score)
  if books.buckets == 0 then
    local failed = begin_index()
    if failed then
      return nil, is_wrong_type(failed) and foreign_at(redis.call('EXISTS', name_of(0)) == 1 and name_of(0) or due) or failed
    end
  end
  local start = bucket_at(place)
  local bucket = name_of(start)
  local added = redis.pcall('ZADD', bucket, score, key)
  if type(added) == 'table' then
    return nil, is_wrong_type(added) and foreign_at(bucket) or added
  end
  if due_by and is_wrong_type(redis.pcall('ZADD', due, 'LT', due_by, text_of(start))) then
    if added == 1 then
      redis.call('ZREM', bucket, key)
    else
      redis.call('ZADD', bucket, old_score, key)
    end
    return nil, foreign_at(due)
  end
  return added
end
