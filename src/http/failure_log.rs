//! Logs failed requests whose cause was not the client. A shard that is down makes thousands of requests fail, so
//! there is at most one line per second for each error code. The line has the number of failures that were not
//! logged.

use std::collections::HashMap;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use parking_lot::Mutex;

use crate::clock::Moment;
use crate::trace::Caller;

const INTERVAL: Duration = Duration::from_secs(1);

/// The reason of a failure. A response carries it for the log, not for the client.
#[derive(Clone, Debug)]
pub struct Failure {
    pub code: &'static str,
    pub reason: String,
}

/// When each code was last logged, and how many failures were not logged since then.
#[derive(Default)]
pub struct FailureLog {
    codes: Mutex<HashMap<&'static str, (Moment, u64)>>,
}

impl FailureLog {
    /// Logs the failure that `response` carries, unless its code was logged less than a second ago.
    pub fn log(&self, response: &Response, caller: &Caller) {
        let Some(Failure { code, reason }) = response.extensions().get::<Failure>() else { return };
        let Some(unlogged) = self.turn(code, Moment::now()) else { return };
        let request_id = String::from_utf8_lossy(caller.request_id());
        let trace_id = caller.trace.map(tracing::field::display);
        let status = StatusCode::as_u16(&response.status());
        tracing::warn!(status, code, reason, request_id = &*request_id, trace_id, unlogged, "request failed");
    }

    /// Decides whether to log a failure. Returns the number of failures that were not logged since the last line, or
    /// `None` if this one is not to be logged either.
    fn turn(&self, code: &'static str, now: Moment) -> Option<u64> {
        let mut codes = self.codes.lock();
        match codes.get_mut(code) {
            Some((last, unlogged)) if now.since(*last) < INTERVAL => {
                *unlogged += 1;
                None
            }
            Some((last, unlogged)) => {
                *last = now;
                Some(std::mem::take(unlogged))
            }
            None => {
                codes.insert(code, (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_failures_are_one_line_per_second_and_code() {
        let (log, start) = (FailureLog::default(), Moment::now());
        assert_eq!(log.turn("timeout", start), Some(0));
        for _ in 0..500 {
            assert_eq!(log.turn("timeout", start), None);
        }
        assert_eq!(log.turn("overloaded", start), Some(0));
        assert_eq!(log.turn("timeout", start + INTERVAL), Some(500));
    }
}
