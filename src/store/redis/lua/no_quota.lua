-- Replaces `quota.lua` for namespaces without a quota.

local made_room, make_room = 0, nil
