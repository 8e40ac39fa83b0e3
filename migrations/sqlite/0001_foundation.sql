-- Policies of namespaces, and one row an operation. Times are Unix milliseconds.

CREATE TABLE cache_namespaces (
    name            TEXT NOT NULL PRIMARY KEY,
    default_ttl     INTEGER NOT NULL,      -- seconds, 0: never expires
    max_size_mb     INTEGER NOT NULL,      -- 0: no limit of its own
    eviction_policy TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL
);

-- Moves with every change above, in the same transaction, so that an instance sees from one
-- number whether it has to read the table again.
CREATE TABLE cache_namespaces_revision (
    only_row INTEGER NOT NULL PRIMARY KEY DEFAULT 1 CHECK (only_row = 1),
    revision INTEGER NOT NULL
);
INSERT INTO cache_namespaces_revision (revision) VALUES (0);

CREATE TABLE cache_access_logs (
    id          INTEGER PRIMARY KEY,
    namespace   TEXT NOT NULL,
    key_pattern TEXT NOT NULL,
    operation   TEXT NOT NULL,
    hit         INTEGER,                   -- 0 or 1; NULL for what is no read
    latency_ms  REAL NOT NULL,
    timestamp   INTEGER NOT NULL
);
CREATE INDEX cache_access_logs_timestamp ON cache_access_logs (timestamp);
CREATE INDEX cache_access_logs_namespace ON cache_access_logs (namespace, timestamp);
