-- For how long L1 may answer past its time while a shard cannot.

-- Adding the column waits for whoever reads the table, and others wait behind it: rather try again later.
SET LOCAL lock_timeout = '2s';

ALTER TABLE cache_namespaces ADD COLUMN stale_if_error BIGINT NOT NULL DEFAULT 0;  -- seconds, 0: never
