-- Who changed what: one row a change of a policy, in the change's own transaction, and one a flush.

-- Dropping an index waits for whoever reads the table, and others wait behind it: rather try again later.
SET LOCAL lock_timeout = '2s';

CREATE TABLE cache_audit (
    id            BIGINT GENERATED ALWAYS AS IDENTITY,
    namespace     TEXT COLLATE "C" NOT NULL,
    at            TIMESTAMPTZ NOT NULL,
    client        TEXT NOT NULL,             -- address of the other end of the connection
    forwarded_for TEXT,                      -- X-Forwarded-For, as it was claimed
    request_id    TEXT NOT NULL,
    action        TEXT NOT NULL,
    before        JSONB,                     -- policies
    after         JSONB,
    pattern       TEXT,                      -- what a flush selected; both NULL: everything
    tag           TEXT,
    deleted_count BIGINT,                    -- entries; NULL where none are meant, or unknown
    complete      BOOLEAN NOT NULL,          -- FALSE: it failed or was given up on the way
    PRIMARY KEY (namespace, id)              -- in this order: a page is always read through it
);
CREATE INDEX cache_audit_at ON cache_audit (at);

-- How far each writer of rows has come, moved in the transaction of its batch: a batch that is sent
-- again after a lost answer is not written twice.
CREATE TABLE cache_journal_positions (
    writer     TEXT COLLATE "C" PRIMARY KEY,
    batch      BIGINT NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);

-- Old rows are found by their ids, which grow with time. Without an index on the time alone a row costs
-- less to write, and a page of one namespace is always read through that namespace's own index.
DROP INDEX cache_access_logs_timestamp;
