-- For how long L1 may answer past its time while a shard cannot.

ALTER TABLE cache_namespaces ADD COLUMN stale_if_error INTEGER NOT NULL DEFAULT 0;  -- seconds, 0: never
