-- Work that outlives its request: one row a job, kept for an hour after its end, so that any instance can show
-- the jobs of all. The running instance writes `done` about once a second, and with it `updated_at`.
CREATE TABLE cache_jobs (
    id            TEXT COLLATE "C" PRIMARY KEY,
    kind          TEXT NOT NULL,             -- flush
    state         TEXT NOT NULL,             -- running, done, failed, cancelled
    namespace     TEXT COLLATE "C" NOT NULL,
    pattern       TEXT,                      -- what a flush selects; both NULL: everything
    tag           TEXT,
    client        TEXT NOT NULL,             -- who asked, for the audit trail
    forwarded_for TEXT,
    request_id    TEXT NOT NULL,
    done          BIGINT NOT NULL,           -- entries deleted so far
    estimate      BIGINT,                    -- entries that will have been deleted at the end; NULL while unknown
    error         TEXT,                      -- why it failed: for people, and for programs
    code          TEXT,
    cancel_asked  BOOLEAN NOT NULL,          -- the running instance stops when it reads this
    started_at    TIMESTAMPTZ NOT NULL,
    updated_at    TIMESTAMPTZ NOT NULL,      -- the last sign of life, by the clock of the database
    ended_at      TIMESTAMPTZ
);
