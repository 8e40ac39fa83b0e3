-- One bounded step of a flush. ARGV: ns, cursor, count, before ('' at the first step), kind
-- ('all', 'match' or 'tag'), the pattern or tag.
-- Returns {next cursor, deleted live entries, before, deleted keys}. Entries with a version above
-- `before` were written after the flush began and stay.

local cursor, count, before, kind, argument = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
if before == '' then
  before = integer(math.max(books[VERSION], now_us))
end
local page, step
if kind == 'tag' then
  page, step = redis.call('SSCAN', 'cache_tag:' .. ns .. ':' .. argument, cursor, 'COUNT', count), 1
elseif kind == 'match' then
  page, step = redis.call('ZSCAN', index, cursor, 'MATCH', argument, 'COUNT', count), 2
else
  page, step = redis.call('ZSCAN', index, cursor, 'COUNT', count), 2
end

local deleted, keys = 0, {}
for i = 1, #page[2], step do
  local key = page[2][i]
  local version = redis.call('HGET', 'cache_meta:' .. ns .. ':' .. key, 'version')
  if tonumber(version or 0) <= tonumber(before) then
    local alive, score = take_out(key)
    if alive then
      deleted = deleted + 1
    elseif score then
      count_loss(score)
    end
    keys[#keys + 1] = key
  end
end
if #keys > 0 then
  save_books()
  publish(keys)
end
return { page[1], deleted, before, keys }
