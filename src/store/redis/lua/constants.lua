-- What the parts of a script share: the plain part (`set_plain.lua`, `delete_plain.lua`), `prelude.lua`, `index.lua`.

-- The number of places, see `index.lua`.
local PLACES = 4294967296
-- A bucket is split when the average is above the first number of keys, and joined when it is below the second.
local FULL_BUCKET, SPARSE_BUCKET = 32, 4
-- What a quota charges for an entry besides its value, its key and its tags, see `model::charge`.
local ENTRY_OVERHEAD = 384
-- The channel of the invalidations, see `scripts.rs`.
local CHANNEL = 'sidecache:invalidations'

-- The fields of `cache_stats:{ns}` that a script needs (listed where they are read: a table of them would cost each
-- write 0.4 %) and the time, once the script has read them.
local known, time
-- The number of this script's change, once it is counted, see `count.lua`.
local seq
