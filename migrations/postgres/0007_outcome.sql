-- How an operation ended, where it was answered, who asked and which instance answered. NULL in rows of an earlier
-- release.

-- Adding columns waits for whoever reads the table, and others wait behind it: rather try again later.
SET LOCAL lock_timeout = '200ms';

ALTER TABLE cache_access_logs
    ADD COLUMN outcome    TEXT,     -- hit, miss, stale, done, refused, failed
    ADD COLUMN status     INTEGER,  -- of the answer over HTTP
    ADD COLUMN error_code TEXT,     -- NULL where it went well
    ADD COLUMN tier       TEXT,     -- l1, shard, embedded; NULL where none was asked
    ADD COLUMN client     TEXT,     -- the address of the connection's other end; NULL for what nobody asked for
    ADD COLUMN instance   TEXT;     -- as in /api/v1/cluster
