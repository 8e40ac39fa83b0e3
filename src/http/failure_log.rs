//! Logs requests that failed through no fault of the client: a line a second and code at most, with
//! the number of those that had none, as a shard that is down fails thousands.

use std::collections::HashMap;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use parking_lot::Mutex;

use crate::clock::Moment;
use crate::trace::Caller;

const INTERVAL: Duration = Duration::from_secs(1);

/// What an answer carries for the log, and not for the client.
#[derive(Clone, Debug)]
pub struct Failure {
    pub code: &'static str,
    pub reason: String,
}

/// When each code was last logged, and how often it came since.
#[derive(Default)]
pub struct FailureLog {
    codes: Mutex<HashMap<&'static str, (Moment, u64)>>,
}

impl FailureLog {
    /// Logs the failure that `response` carries, if any and if it is time.
    pub fn note(&self, response: &Response, caller: &Caller) {
        let Some(Failure { code, reason }) = response.extensions().get::<Failure>() else { return };
        let Some(unlogged) = self.turn(code, Moment::now()) else { return };
        let request_id = String::from_utf8_lossy(caller.request_id());
        let trace_id = caller.trace.map(tracing::field::display);
        let status = StatusCode::as_u16(&response.status());
        tracing::warn!(status, code, reason, request_id = &*request_id, trace_id, unlogged, "request failed");
    }

    /// The number of failures not logged since the last, if this one is to be logged.
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
    fn a_flood_of_failures_is_a_line_a_second_and_code() {
        let (log, start) = (FailureLog::default(), Moment::now());
        assert_eq!(log.turn("timeout", start), Some(0));
        for _ in 0..500 {
            assert_eq!(log.turn("timeout", start), None);
        }
        assert_eq!(log.turn("overloaded", start), Some(0));
        assert_eq!(log.turn("timeout", start + INTERVAL), Some(500));
    }
}
