//! Waiting for a moment to within some ten microseconds, where tokio's own timer has milliseconds.

use std::io;
use std::time::Instant;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// A timer of the kernel, read as a pipe is: eight bytes when its time has come.
pub struct Timer(Receiver);

impl Timer {
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new() -> io::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // "Unchecked" as it is no pipe; the runtime asks no more of it than that it can be polled and read.
        Ok(Timer(Receiver::from_owned_fd_unchecked(timer)?))
    }

    /// Returns at `moment`, or at once if it is past.
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
