//! The two clocks: one for durations, one for dates. The only file that may read the time.
//!
//! Durations are measured on `CLOCK_BOOTTIME`: it continues while the machine is suspended and never goes backwards.
//! A process that was paused therefore notices that its copies are old.

use std::ops::Add;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::model::UnixMillis;

/// A moment on this machine's boot-time clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        Self(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
    }

    /// The moment `nanos` after boot; the inverse of [`Moment::as_nanos`].
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    pub fn as_nanos(self) -> u64 {
        self.0
    }

    /// The moment `duration` before this one; `None` if it is before the boot.
    pub fn earlier(self, duration: Duration) -> Option<Self> {
        u64::try_from(duration.as_nanos()).ok().and_then(|nanos| self.0.checked_sub(nanos)).map(Self)
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

/// The date by this machine's wall clock; microseconds since the Unix epoch.
pub fn unix_micros() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
}

/// The date by this machine's wall clock as of its last tick: up to 10 ms old, and cheaper to read.
pub fn unix_millis_of_last_tick() -> UnixMillis {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    UnixMillis(now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000)
}

/// The date by this machine's wall clock.
pub fn unix_millis() -> UnixMillis {
    UnixMillis(unix_micros() / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_go_forward_and_saturate() {
        let now = Moment::now();
        assert!(Moment::now() >= now);
        assert_eq!(now.since(now + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!((now + Duration::MAX).as_nanos(), u64::MAX);
        assert_eq!((now + Duration::from_secs(1)).earlier(Duration::from_secs(1)), Some(now));
        assert_eq!(now.earlier(Duration::MAX), None);
    }
}
