-- Comes after `index.lua` in scripts that add or remove tags.

-- Counts that a key with a tag was added (`change` is 1) or removed (`change` is -1).
local function count_tagged(tag, change)
  local count = redis.pcall('HINCRBY', tag_counts, 't:' .. tag, change)
  if type(count) == 'table' then
    is_lost = true
  elseif change == 1 and count == 1 and redis.call('HEXISTS', tag_counts, MARK) == 0 then
    -- This is the first tag of all, or the previous counts are lost.
    redis.call('HSET', tag_counts, MARK, '1')
    if not foreign_books then
      is_lost = is_lost or redis.call('HGET', stats, 'tagged') == books.scope
      redis.call('HSET', stats, 'tagged', books.scope)
    end
  elseif change == -1 and count <= 0 then
    redis.call('HDEL', tag_counts, 't:' .. tag)
    is_lost = is_lost or count < 0
    if redis.call('HLEN', tag_counts) <= 1 then
      -- That was the last tag.
      redis.call('UNLINK', tag_counts)
      if not foreign_books then
        redis.call('HDEL', stats, 'tagged')
      end
    end
  end
end

-- Adds a key to the sets of its tags. If a set holds another type now, the index is rebuilt.
local function tag_entry(key, tags, place)
  for tag in string.gmatch(tags, '[^\n]+') do
    local added = redis.pcall('ZADD', tag_set(tag), place, key)
    if added == 1 then
      count_tagged(tag, 1)
    elseif added ~= 0 then
      is_lost = true
    end
  end
end

local function untag(key, tags)
  if tags then
    for tag in string.gmatch(tags, '[^\n]+') do
      if redis.pcall('ZREM', tag_set(tag), key) == 1 then
        count_tagged(tag, -1)
      end
      work = work + 0.3
    end
  end
end
