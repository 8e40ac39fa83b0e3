//! The circuit breaker of one shard: a shard that does not answer gets no requests until a probe was answered.
//!
//! ```text
//!         several timeouts in a row                a PING was answered
//!   Closed ------------------------> Open ---------------------------> HalfOpen
//!     ^  ^                             ^                                  |  |
//!     |  |                             +---------- one failure -----------+  |
//!     |  +------------------- a few operations were answered ----------------+
//! ```
//!
//! Without it, every operation on a shard that hangs would wait for its timeout. Thousands of operations at a time
//! would hold memory and connections, only to fail in the end. The connections send the PINGs themselves, see
//! `connection.rs`: no request of a client is used as a probe.
//!
//! Only missing answers count: a shard that answers with an error is reachable.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Moment;

/// This many unanswered operations in a row open the breaker.
const SILENT_IN_A_ROW: u32 = 5;

/// The most operations in flight while it is half open, and the number of answers that close it.
const TRIALS: u32 = 8;

/// The states of the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    Closed,
    Open,
    HalfOpen,
}

/// The circuit breaker of one shard.
pub struct Breaker {
    state: AtomicU8,
    /// Timeouts since the last answer.
    silent: AtomicU32,
    /// When the first failure since the last answer happened, in nanoseconds of [`Moment`]; 0 if there was none.
    failing_since: AtomicU64,
    /// While half open: the operations in flight, and the answers so far.
    trials: AtomicU32,
    answers: AtomicU32,
    /// The breaker also opens when failures have continued for this long, however few operations there are.
    patience: Duration,
    /// Incremented with every change of the state. The result of a command that was sent before a change does not
    /// count after it.
    generation: AtomicU32,
    /// Locked during every change of the state.
    change: Mutex<()>,
}

/// How an operation failed, as far as the breaker needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It was sent, but not answered in time.
    Silent,
    /// There was no connection, or the connection broke.
    NotConnected,
}

/// The permission to send a command for a number of operations.
pub struct Admission<'b> {
    breaker: &'b Breaker,
    generation: u32,
    operations: u32,
    is_trial: bool,
}

impl Admission<'_> {
    /// Reports an answer; returns whether that closed the breaker.
    pub fn answered(&self) -> bool {
        self.is_current() && self.breaker.answered(self.operations)
    }

    /// Reports a failure at `now`. If that opened the breaker, returns the state before.
    pub fn failed(&self, failure: Failure, now: Moment) -> Option<State> {
        if self.is_current() { self.breaker.failed(failure, self.operations, now) } else { None }
    }

    fn is_current(&self) -> bool {
        self.generation == self.breaker.generation.load(Relaxed)
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if self.is_trial {
            self.breaker.trials.fetch_sub(self.operations, Relaxed);
        }
    }
}

impl Breaker {
    /// A closed breaker that opens when failures continue for `patience`.
    pub fn new(patience: Duration) -> Self {
        Self {
            state: AtomicU8::new(State::Closed as u8),
            silent: AtomicU32::new(0),
            failing_since: AtomicU64::new(0),
            trials: AtomicU32::new(0),
            answers: AtomicU32::new(0),
            patience,
            generation: AtomicU32::new(0),
            change: Mutex::new(()),
        }
    }

    pub fn state(&self) -> State {
        match self.state.load(Relaxed) {
            0 => State::Closed,
            1 => State::Open,
            _ => State::HalfOpen,
        }
    }

    /// Admits a command for this many operations; `None` if it must not be sent now. Costs two atomic loads while the
    /// breaker is closed.
    pub fn admit(&self, operations: u32) -> Option<Admission<'_>> {
        let generation = self.generation.load(Relaxed);
        match self.state() {
            State::Closed => Some(Admission { breaker: self, generation, operations, is_trial: false }),
            State::Open => None,
            State::HalfOpen => {
                let taken = self.trials.fetch_add(operations, Relaxed);
                // If there are too many, the admission is dropped, which frees the places again.
                let admission = Admission { breaker: self, generation, operations, is_trial: true };
                (taken.saturating_add(operations) <= TRIALS).then_some(admission)
            }
        }
    }

    fn answered(&self, operations: u32) -> bool {
        if self.failing_since.load(Relaxed) != 0 && self.state() == State::Closed {
            self.forgive();
        }
        if self.state() == State::HalfOpen
            && self.answers.fetch_add(operations, Relaxed).saturating_add(operations) >= TRIALS
        {
            let _change = self.change.lock();
            if self.state() == State::HalfOpen {
                self.forgive();
                self.enter(State::Closed);
                return true;
            }
        }
        false
    }

    fn failed(&self, failure: Failure, operations: u32, now: Moment) -> Option<State> {
        let first = self.failing_since.compare_exchange(0, now.as_nanos(), Relaxed, Relaxed).err();
        let failing = first.map_or(Duration::ZERO, |nanos| now.since(Moment::from_nanos(nanos)));
        let silent = match failure {
            Failure::Silent => self.silent.fetch_add(operations, Relaxed).saturating_add(operations),
            Failure::NotConnected => 0,
        };
        let _change = self.change.lock();
        let state = self.state();
        let opens = match state {
            State::Closed => silent >= SILENT_IN_A_ROW || failing >= self.patience,
            State::HalfOpen => true,
            State::Open => false,
        };
        if opens {
            self.enter(State::Open);
        }
        opens.then_some(state)
    }

    /// Half-opens the breaker, because a probe was answered.
    pub fn try_again(&self) {
        let _change = self.change.lock();
        if self.state() == State::Open {
            self.forgive();
            self.answers.store(0, Relaxed);
            self.enter(State::HalfOpen);
        }
    }

    fn forgive(&self) {
        self.silent.store(0, Relaxed);
        self.failing_since.store(0, Relaxed);
    }

    fn enter(&self, state: State) {
        self.generation.fetch_add(1, Relaxed);
        self.state.store(state as u8, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENS_AFTER: Duration = Duration::from_millis(250);

    fn open() -> (Breaker, Moment) {
        let (breaker, now) = (Breaker::new(OPENS_AFTER), Moment::now());
        let opened = (0..SILENT_IN_A_ROW).filter_map(|_| breaker.failed(Failure::Silent, 1, now)).count();
        assert_eq!((opened, breaker.state()), (1, State::Open), "reported once");
        (breaker, now)
    }

    #[test]
    fn timeouts_in_a_row_open_it() {
        let (breaker, _) = open();
        assert!(breaker.admit(1).is_none());
    }

    #[test]
    fn an_answer_in_between_keeps_it_closed() {
        let (breaker, now) = (Breaker::new(OPENS_AFTER), Moment::now());
        for _ in 0..20 {
            for _ in 1..SILENT_IN_A_ROW {
                assert_eq!(breaker.failed(Failure::Silent, 1, now), None);
            }
            breaker.answered(1);
        }
        assert_eq!(breaker.state(), State::Closed);
        assert_eq!(breaker.failed(Failure::Silent, 1, now + OPENS_AFTER * 10), None, "the count starts again");
    }

    #[test]
    fn a_connection_that_stays_lost_opens_it_and_a_short_break_does_not() {
        let (breaker, now) = (Breaker::new(OPENS_AFTER), Moment::now());
        for _ in 0..1000 {
            assert_eq!(breaker.failed(Failure::NotConnected, 1, now), None, "one broken connection");
        }
        assert_eq!(breaker.failed(Failure::NotConnected, 1, now + OPENS_AFTER), Some(State::Closed));
    }

    #[test]
    fn half_open_it_allows_a_few_operations_and_closes_when_they_are_answered() {
        let (breaker, _) = open();
        breaker.try_again();
        let under_way: Vec<_> = (0..TRIALS).map(|_| breaker.admit(1).expect("one of the few")).collect();
        assert!(breaker.admit(1).is_none());
        drop(under_way);
        for _ in 0..TRIALS {
            assert_eq!(breaker.state(), State::HalfOpen);
            let _trial = breaker.admit(1).expect("their places are free again");
            breaker.answered(1);
        }
        assert_eq!(breaker.state(), State::Closed);
        assert!(breaker.admit(1).is_some());
    }

    #[test]
    fn results_of_commands_sent_before_it_opened_do_not_count() {
        let (breaker, now) = (Breaker::new(OPENS_AFTER), Moment::now());
        let sent: Vec<_> = (0..20).map(|_| breaker.admit(1).expect("closed")).collect();
        let opened = sent.iter().filter_map(|operation| operation.failed(Failure::Silent, now)).count();
        assert_eq!(opened, 1);
        breaker.try_again();
        sent.iter().for_each(|operation| assert_eq!(operation.failed(Failure::Silent, now), None));
        assert_eq!(breaker.state(), State::HalfOpen);
        assert!(breaker.admit(1).is_some_and(|trial| trial.failed(Failure::Silent, now).is_some()));
    }

    #[test]
    fn a_timeout_while_half_open_opens_it_at_once() {
        let (breaker, now) = open();
        breaker.try_again();
        assert_eq!(breaker.failed(Failure::Silent, 1, now), Some(State::HalfOpen));
        assert!(breaker.admit(1).is_none());
    }

    #[test]
    fn a_command_counts_once_for_each_of_its_operations() {
        let (breaker, now) = (Breaker::new(OPENS_AFTER), Moment::now());
        assert_eq!(breaker.admit(SILENT_IN_A_ROW).unwrap().failed(Failure::Silent, now), Some(State::Closed));
        breaker.try_again();
        assert!(breaker.admit(TRIALS + 1).is_none(), "more than a few");
        let trial = breaker.admit(TRIALS).unwrap();
        assert!(breaker.admit(1).is_none());
        trial.answered();
        assert_eq!(breaker.state(), State::Closed);
    }
}
