//! Waiting for something to become true: short interval, long limit, and the last reason when it
//! does not.

use std::future::Future;
use std::panic::Location;
use std::time::{Duration, Instant};

/// How often [`eventually`] looks again.
pub const INTERVAL: Duration = Duration::from_millis(10);

/// For what takes a round trip or a background tick of a second: generous, since a passing test never
/// waits this long.
pub const SOON: Duration = Duration::from_secs(10);

/// For servers that have to come back and be reconnected to.
pub const LATER: Duration = Duration::from_secs(30);

/// Calls `probe` until it succeeds and returns what it found.
///
/// Panics at `limit` with the probe's last reason.
#[track_caller]
pub fn eventually<T>(limit: Duration, mut probe: impl AsyncFnMut() -> anyhow::Result<T>) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        let deadline = Instant::now() + limit;
        loop {
            match probe().await {
                Ok(found) => return found,
                Err(reason) if Instant::now() >= deadline => {
                    panic!("{caller}: not within {limit:?}: {reason:#}")
                }
                Err(_) => tokio::time::sleep(INTERVAL).await,
            }
        }
    }
}
