-- One step of a listing. ARGV: ns, cursor, count, kind ('all', 'match' or 'tag'), the pattern or
-- tag. Returns {next cursor, live keys of this step}.

local cursor, count, kind, argument = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local keys = {}
local page
if kind == 'tag' then
  page = redis.call('SSCAN', 'cache_tag:' .. ns .. ':' .. argument, cursor, 'COUNT', count)
  for _, key in ipairs(page[2]) do
    local score = redis.call('ZSCORE', index, key)
    if score and tonumber(score) > now_ms then
      keys[#keys + 1] = key
    end
  end
else
  if kind == 'match' then
    page = redis.call('ZSCAN', index, cursor, 'MATCH', argument, 'COUNT', count)
  else
    page = redis.call('ZSCAN', index, cursor, 'COUNT', count)
  end
  for i = 1, #page[2], 2 do
    if tonumber(page[2][i + 1]) > now_ms then
      keys[#keys + 1] = page[2][i]
    end
  end
end
return { page[1], keys }
