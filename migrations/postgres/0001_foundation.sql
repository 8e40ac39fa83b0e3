-- Policies of namespaces, and one row an operation.

CREATE TABLE cache_namespaces (
    name            TEXT COLLATE "C" PRIMARY KEY,
    default_ttl     BIGINT NOT NULL,       -- seconds, 0: never expires
    max_size_mb     BIGINT NOT NULL,       -- 0: no limit of its own
    eviction_policy TEXT NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL,
    updated_at      TIMESTAMPTZ NOT NULL
);

-- Moves with every change above, in the same transaction, so that an instance sees from one
-- number whether it has to read the table again.
CREATE TABLE cache_namespaces_revision (
    only_row BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (only_row),
    revision BIGINT NOT NULL
);
INSERT INTO cache_namespaces_revision (revision) VALUES (0);

CREATE TABLE cache_access_logs (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace   TEXT NOT NULL,
    key_pattern TEXT NOT NULL,
    operation   TEXT NOT NULL,
    hit         BOOLEAN,                   -- NULL for what is no read
    latency_ms  DOUBLE PRECISION NOT NULL,
    timestamp   TIMESTAMPTZ NOT NULL
);
CREATE INDEX cache_access_logs_timestamp ON cache_access_logs (timestamp);
CREATE INDEX cache_access_logs_namespace ON cache_access_logs (namespace, timestamp);
