-- How much TTLs are shortened at random, when entries are refreshed, and how long deleted versions are remembered.

ALTER TABLE cache_namespaces ADD COLUMN ttl_jitter REAL NOT NULL DEFAULT 0.0;               -- part of a TTL, 0 to 0.5; 0: off
ALTER TABLE cache_namespaces ADD COLUMN refresh_after REAL NOT NULL DEFAULT 1.0;            -- part of a TTL, more than 0 to 1; 1: off
ALTER TABLE cache_namespaces ADD COLUMN stale_while_revalidate INTEGER NOT NULL DEFAULT 0;  -- seconds, 0: off
ALTER TABLE cache_namespaces ADD COLUMN tombstone_ttl INTEGER NOT NULL DEFAULT 60;          -- seconds
