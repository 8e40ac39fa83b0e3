-- For people who look into the database with other tools: every namespace has a number, and a row that is added by
-- hand needs no more than a name. Times are Unix milliseconds.

-- Without it the renaming below would fail where somebody has made a view of the table.
PRAGMA legacy_alter_table = ON;

CREATE TABLE cache_namespaces_with_id (
    id              INTEGER PRIMARY KEY,
    name            TEXT NOT NULL UNIQUE,
    default_ttl     INTEGER NOT NULL DEFAULT 3600,     -- seconds, 0: never expires
    max_size_mb     INTEGER NOT NULL DEFAULT 100,      -- 0: no limit of its own
    eviction_policy TEXT NOT NULL DEFAULT 'LRU',
    created_at      INTEGER NOT NULL DEFAULT (unixepoch() * 1000),
    updated_at      INTEGER NOT NULL DEFAULT (unixepoch() * 1000),
    stale_if_error  INTEGER NOT NULL DEFAULT 0         -- seconds, 0: never
);
INSERT INTO cache_namespaces_with_id
    (name, default_ttl, max_size_mb, eviction_policy, created_at, updated_at, stale_if_error)
    SELECT name, default_ttl, max_size_mb, eviction_policy, created_at, updated_at, stale_if_error
    FROM cache_namespaces ORDER BY created_at, name;
DROP TABLE cache_namespaces;
ALTER TABLE cache_namespaces_with_id RENAME TO cache_namespaces;

PRAGMA legacy_alter_table = OFF;
