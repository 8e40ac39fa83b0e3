-- Which request an operation was part of, and in which trace.

-- Adding columns waits for whoever reads the table, and others wait behind it: rather try again later.
SET LOCAL lock_timeout = '200ms';

ALTER TABLE cache_access_logs
    ADD COLUMN request_id TEXT,  -- NULL in rows of an earlier release
    ADD COLUMN trace_id TEXT;    -- 32 hexadecimal digits; NULL without a trace
