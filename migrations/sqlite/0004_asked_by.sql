-- Which request an operation was part of, and in which trace.

ALTER TABLE cache_access_logs ADD COLUMN request_id TEXT;  -- NULL in rows of an earlier release
ALTER TABLE cache_access_logs ADD COLUMN trace_id TEXT;    -- 32 hexadecimal digits; NULL without a trace
