-- How much TTLs are shortened at random, when entries are refreshed, and how long deleted versions are remembered.

-- Adding columns waits for whoever reads the table, and others wait behind it: rather try again later.
SET LOCAL lock_timeout = '2s';

ALTER TABLE cache_namespaces
    ADD COLUMN ttl_jitter             DOUBLE PRECISION NOT NULL DEFAULT 0,   -- part of a TTL, 0 to 0.5; 0: off
    ADD COLUMN refresh_after          DOUBLE PRECISION NOT NULL DEFAULT 1,   -- part of a TTL, more than 0 to 1; 1: off
    ADD COLUMN stale_while_revalidate BIGINT           NOT NULL DEFAULT 0,   -- seconds, 0: off
    ADD COLUMN tombstone_ttl          BIGINT           NOT NULL DEFAULT 60;  -- seconds
