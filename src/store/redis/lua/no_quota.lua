-- Stands in place of `quota.lua` for namespaces without a quota.

local BUDGET, budget, make_room = 0, 0, nil
