-- Stands behind the tags where entries are put in.

-- Puts a key into the index. Returns how many were added, or nil and {name, type} where another type stands in the
-- way, or nil and the error where Redis takes no writes at present: it refuses the first one of a script.
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
