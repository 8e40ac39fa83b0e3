//! The terms of a read: how fresh its answer must be, and who may give it. [`ReadTerms::check`] decides whether an
//! entry meets them, without a clock or a store.
//!
//! Terms only narrow what the settings and the policy of the namespace allow.

use std::time::Duration;

use super::position::Positions;

/// The terms of one read. The default has no wishes: the settings and the policy decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadTerms {
    /// The owning shard must answer: neither L1 nor a stale copy may.
    pub no_cache: bool,
    /// Only memory may answer: L1, or the embedded store. No shard is asked.
    pub only_if_cached: bool,
    /// The most time since the entry was written.
    pub max_age: Option<Duration>,
    /// The least time that the entry must have left.
    pub min_fresh: Option<Duration>,
    pub max_stale: Option<MaxStale>,
    /// The most time since an acknowledged write that may be missing from the answer.
    pub max_staleness: Option<Duration>,
    /// No acknowledged change up to these positions may be missing from the answer.
    pub positions: Positions,
}

/// How long ago a stale entry may have been fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MaxStale {
    AtMost(Duration),
    /// As long ago as the policy allows.
    Any,
}

/// An entry that could be the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Time since it was written.
    pub age: Duration,
    /// Time left; `None` if it never expires.
    pub left: Option<Duration>,
    /// Time since it was fresh; zero if it is fresh.
    pub overdue: Duration,
    /// No acknowledged write older than this is missing from it; zero if the store has just answered.
    pub staleness: Duration,
}

/// The term that an entry does not meet. The names are those of the directives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    NoCache,
    MaxAge,
    MinFresh,
    /// The entry is stale, or stale for too long.
    MaxStale,
    MaxStaleness,
    /// This instance has not come as far as the positions.
    Position,
}

impl Unmet {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoCache => "no-cache",
            Self::MaxAge => "max-age",
            Self::MinFresh => "min-fresh",
            Self::MaxStale => "max-stale",
            Self::MaxStaleness => "max-staleness-ms",
            Self::Position => "position",
        }
    }
}

impl ReadTerms {
    /// Whether the read has no wishes.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Whether an entry may be the answer, or else the first term that it does not meet. The policy must allow a stale
    /// entry besides.
    ///
    /// # Errors
    /// The term that is not met.
    pub fn check(&self, entry: &Candidate) -> Result<(), Unmet> {
        if self.max_age.is_some_and(|most| entry.age > most) {
            return Err(Unmet::MaxAge);
        }
        // An entry that never expires has enough time left. A stale entry has none, not even for `min-fresh=0`.
        let is_stale = !entry.overdue.is_zero();
        if self.min_fresh.is_some_and(|least| is_stale || entry.left.is_some_and(|left| left < least)) {
            return Err(Unmet::MinFresh);
        }
        if self.max_staleness.is_some_and(|most| entry.staleness > most) {
            return Err(Unmet::MaxStaleness);
        }
        if is_stale { self.check_stale(entry.overdue) } else { Ok(()) }
    }

    fn check_stale(&self, overdue: Duration) -> Result<(), Unmet> {
        if self.no_cache {
            return Err(Unmet::NoCache);
        }
        match self.max_stale {
            Some(MaxStale::AtMost(most)) if overdue > most => Err(Unmet::MaxStale),
            Some(_) => Ok(()),
            // Who names an age does not want a stale answer, unless `max-stale` is there too (RFC 9111, 5.2.1.1).
            None if self.max_age.is_some() => Err(Unmet::MaxAge),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Candidate = Candidate {
        age: Duration::from_secs(10),
        left: Some(Duration::from_secs(50)),
        overdue: Duration::ZERO,
        staleness: Duration::from_millis(137),
    };

    /// Expired 5 s ago.
    const STALE: Candidate = Candidate {
        age: Duration::from_secs(65),
        left: Some(Duration::ZERO),
        overdue: Duration::from_secs(5),
        staleness: Duration::from_millis(137),
    };

    fn plain() -> ReadTerms {
        ReadTerms::default()
    }

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    fn at_most(seconds: u64) -> Option<MaxStale> {
        Some(MaxStale::AtMost(Duration::from_secs(seconds)))
    }

    #[test]
    fn without_terms_every_entry_is_an_answer() {
        assert!(plain().is_plain() && !ReadTerms { no_cache: true, ..plain() }.is_plain());
        for entry in [FRESH, STALE] {
            assert_eq!(plain().check(&entry), Ok(()));
        }
    }

    #[test]
    fn a_fresh_entry_must_meet_each_bound() {
        let nothing_left = Candidate { left: None, ..FRESH };
        for (terms, entry, expected) in [
            (ReadTerms { max_age: seconds(10), ..plain() }, FRESH, Ok(())),
            (ReadTerms { max_age: seconds(9), ..plain() }, FRESH, Err(Unmet::MaxAge)),
            (ReadTerms { max_age: seconds(0), ..plain() }, FRESH, Err(Unmet::MaxAge)),
            (ReadTerms { max_age: seconds(u64::MAX), ..plain() }, FRESH, Ok(())),
            (ReadTerms { min_fresh: seconds(50), ..plain() }, FRESH, Ok(())),
            (ReadTerms { min_fresh: seconds(51), ..plain() }, FRESH, Err(Unmet::MinFresh)),
            (ReadTerms { min_fresh: seconds(u64::MAX), ..plain() }, nothing_left, Ok(())),
            (ReadTerms { max_staleness: Some(Duration::from_millis(137)), ..plain() }, FRESH, Ok(())),
            (
                ReadTerms { max_staleness: Some(Duration::from_millis(136)), ..plain() },
                FRESH,
                Err(Unmet::MaxStaleness),
            ),
            (ReadTerms { max_stale: at_most(0), no_cache: true, ..plain() }, FRESH, Ok(())),
            (ReadTerms { max_age: seconds(10), min_fresh: seconds(51), ..plain() }, FRESH, Err(Unmet::MinFresh)),
        ] {
            assert_eq!(terms.check(&entry), expected, "{terms:?}");
        }
    }

    #[test]
    fn a_stale_entry_is_refused_by_every_term_that_asks_for_more() {
        let unproven = Candidate { left: None, ..STALE };
        for (terms, entry, expected) in [
            (ReadTerms { no_cache: true, ..plain() }, STALE, Err(Unmet::NoCache)),
            (ReadTerms { no_cache: true, max_stale: Some(MaxStale::Any), ..plain() }, STALE, Err(Unmet::NoCache)),
            (ReadTerms { max_stale: Some(MaxStale::Any), ..plain() }, STALE, Ok(())),
            (ReadTerms { max_stale: at_most(5), ..plain() }, STALE, Ok(())),
            (ReadTerms { max_stale: at_most(4), ..plain() }, STALE, Err(Unmet::MaxStale)),
            (ReadTerms { max_age: seconds(100), ..plain() }, STALE, Err(Unmet::MaxAge)),
            (ReadTerms { max_age: seconds(100), max_stale: at_most(5), ..plain() }, STALE, Ok(())),
            (ReadTerms { max_age: seconds(64), max_stale: at_most(5), ..plain() }, STALE, Err(Unmet::MaxAge)),
            (ReadTerms { min_fresh: seconds(1), ..plain() }, STALE, Err(Unmet::MinFresh)),
            (ReadTerms { min_fresh: seconds(1), max_stale: at_most(5), ..plain() }, STALE, Err(Unmet::MinFresh)),
            (ReadTerms { min_fresh: seconds(0), ..plain() }, unproven, Err(Unmet::MinFresh)),
        ] {
            assert_eq!(terms.check(&entry), expected, "{terms:?}");
        }
    }
}
