-- Work that outlives its request: one row a job, kept for an hour after its end, so that any instance can show
-- the jobs of all. The running instance writes `done` about once a second, and with it `updated_at`.
-- Times are Unix milliseconds.
CREATE TABLE cache_jobs (
    id            TEXT NOT NULL PRIMARY KEY,
    kind          TEXT NOT NULL,             -- flush
    state         TEXT NOT NULL,             -- running, done, failed, cancelled
    namespace     TEXT NOT NULL,
    pattern       TEXT,                      -- what a flush selects; both NULL: everything
    tag           TEXT,
    client        TEXT NOT NULL,             -- who asked, for the audit trail
    forwarded_for TEXT,
    request_id    TEXT NOT NULL,
    done          INTEGER NOT NULL,          -- entries deleted so far
    estimate      INTEGER,                   -- entries that will have been deleted at the end; NULL while unknown
    error         TEXT,                      -- why it failed: for people, and for programs
    code          TEXT,
    cancel_asked  INTEGER NOT NULL,          -- the running instance stops when it reads this
    started_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,          -- the last sign of life
    ended_at      INTEGER
);
