-- Who changed what: one row a change of a policy, in the change's own transaction, and one a flush.
-- Times are Unix milliseconds.

CREATE TABLE cache_audit (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace     TEXT NOT NULL,
    at            INTEGER NOT NULL,
    client        TEXT NOT NULL,             -- address of the other end of the connection
    forwarded_for TEXT,                      -- X-Forwarded-For, as it was claimed
    request_id    TEXT NOT NULL,
    action        TEXT NOT NULL,
    before        TEXT,                      -- policies, as JSON
    after         TEXT,
    pattern       TEXT,                      -- what a flush selected; both NULL: everything
    tag           TEXT,
    deleted_count INTEGER,                   -- entries; NULL where none are meant, or unknown
    complete      INTEGER NOT NULL           -- 0: it failed or was given up on the way
);
CREATE INDEX cache_audit_namespace ON cache_audit (namespace, id);
CREATE INDEX cache_audit_at ON cache_audit (at);

-- How far each writer of rows has come, moved in the transaction of its batch: a batch that is sent
-- again after a lost answer is not written twice.
CREATE TABLE cache_journal_positions (
    writer     TEXT NOT NULL PRIMARY KEY,
    batch      INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);

-- Old rows are found by their ids, which grow with time. Without an index on the time alone a row costs
-- less to write, and a page of one namespace is always read through that namespace's own index.
DROP INDEX cache_access_logs_timestamp;
