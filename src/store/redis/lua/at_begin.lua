-- Comes before a script that reads, if its answer must also have the number of the last change. `at_end.lua` comes
-- after.

local function read()
