//! Waits for a moment with a precision of some ten microseconds; tokio's timer has milliseconds.

use std::io;
use std::time::Instant;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// A kernel timer (timerfd), read like a pipe: it delivers eight bytes when its time has come.
pub struct Timer(Receiver);

impl Timer {
    /// # Errors
    /// The process has no free file descriptor.
    pub fn new() -> io::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // "Unchecked" because it is not a pipe; the runtime only needs to poll and read it.
        Ok(Timer(Receiver::from_owned_fd_unchecked(timer)?))
    }

    /// Returns at `moment`, or at once if that has passed.
    ///
    /// # Errors
    /// The kernel refuses the timer.
    pub async fn sleep_until(&mut self, moment: Instant) -> io::Result<()> {
        let wait = moment.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec::try_from(wait).map_err(io::Error::other)?,
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        self.0.read_u64().await?;
        Ok(())
    }
}
