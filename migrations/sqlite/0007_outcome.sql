-- How an operation ended, where it was answered, who asked and which instance answered. NULL in rows of an earlier
-- release.

ALTER TABLE cache_access_logs ADD COLUMN outcome TEXT;     -- hit, miss, stale, done, refused, failed
ALTER TABLE cache_access_logs ADD COLUMN status INTEGER;   -- of the answer over HTTP
ALTER TABLE cache_access_logs ADD COLUMN error_code TEXT;  -- NULL where it went well
ALTER TABLE cache_access_logs ADD COLUMN tier TEXT;        -- l1, shard, embedded; NULL where none was asked
ALTER TABLE cache_access_logs ADD COLUMN client TEXT;      -- the address of the connection's other end
ALTER TABLE cache_access_logs ADD COLUMN instance TEXT;    -- as in /api/v1/cluster
