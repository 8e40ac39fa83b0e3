//! Waits until a condition holds: short interval, long limit. A timeout reports the last reason.

use std::future::Future;
use std::panic::Location;
use std::time::{Duration, Instant};

/// How often [`eventually`] calls its probe.
pub const INTERVAL: Duration = Duration::from_millis(10);

/// The limit for a round trip or a background task that runs every second. It is generous, since a passing test never
/// waits this long.
pub const SOON: Duration = Duration::from_secs(10);

/// The limit for a server that restarts and to which the service reconnects.
pub const LATER: Duration = Duration::from_secs(30);

/// Calls `probe` until it succeeds, and returns its result.
///
/// After `limit` it panics with the last reason of `probe`.
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
