-- Comes after `constants.lua` in scripts that change one entry.

-- Whether preconditions refuse a change. They have the form of `model::Preconditions::to_script`; `meta_version` is the
-- field `version` of the metadata, false if there is none. Also returns the version of the present entry, or '0'.
local function is_refused(preconditions, meta_version, value_key)
  local present = meta_version and redis.call('EXISTS', value_key) == 1 and meta_version
  for kind, versions in string.gmatch(preconditions, '([mn])(%S*)') do
    local is_listed = present
      and (versions == '*' or string.find(',' .. versions .. ',', ',' .. present .. ',', 1, true))
    if (kind == 'm') ~= (is_listed and true or false) then
      return true, present or '0'
    end
  end
  return false
end
