-- The part before a script that reads, if the answer must also say how far the shard has come; `at_end.lua` follows.

local function read()
