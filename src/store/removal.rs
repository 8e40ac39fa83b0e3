//! What happens to the entries that a deletion or a flush selects.

use std::time::Duration;

use crate::model::{Extra, Mark};

/// How entries are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// How long the source versions of deleted entries stay.
    pub tombstone_ttl: Duration,
    /// Marks the entries stale that may be answered after their freshness, and deletes only the others.
    pub windows: Option<Windows>,
}

/// How long the policy of a namespace allows to answer entries after the end of their freshness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    pub stale_while_revalidate: Duration,
    pub stale_if_error: Duration,
}

impl Removal {
    /// Deletes entries. Their source versions stay for `tombstone_ttl`.
    pub fn deletion(tombstone_ttl: Duration) -> Self {
        Self { tombstone_ttl, windows: None }
    }
}

impl Windows {
    /// The mark of an entry, and for how long from now it is kept; `None` if it must be deleted. `lua/mark.lua` decides
    /// the same.
    pub fn mark(&self, extra: Extra) -> Option<(Mark, Duration)> {
        let grace = extra.own_grace().unwrap_or(self.stale_while_revalidate);
        let mark =
            if grace.is_zero() { (Mark::IfError, self.stale_if_error) } else { (Mark::WhileRevalidating, grace) };
        Some(mark).filter(|(_, window)| !window.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    #[test]
    fn the_own_grace_counts_before_the_policy_and_errors_come_last() {
        let seconds = Duration::from_secs;
        let marked = |own, stale_while_revalidate, stale_if_error| {
            let windows = Windows {
                stale_while_revalidate: seconds(stale_while_revalidate),
                stale_if_error: seconds(stale_if_error),
            };
            windows.mark(Extra::new(Kind::Json, Mark::Unmarked, seconds(own)))
        };
        assert_eq!(marked(5, 10, 20), Some((Mark::WhileRevalidating, seconds(5))));
        assert_eq!(marked(0, 10, 20), Some((Mark::WhileRevalidating, seconds(10))));
        assert_eq!(marked(0, 0, 20), Some((Mark::IfError, seconds(20))));
        assert_eq!(marked(0, 0, 0), None);
    }

    #[test]
    fn a_grace_of_zero_that_was_asked_for_overrules_the_policy() {
        let asked = Extra::of_write(Kind::Json, Some(Duration::ZERO));
        let stale_while_revalidate = Duration::from_secs(10);
        let windows = Windows { stale_while_revalidate, stale_if_error: Duration::ZERO };
        assert_eq!(windows.mark(asked), None);
        assert_eq!(windows.mark(Extra::default()), Some((Mark::WhileRevalidating, stale_while_revalidate)));
        let stale_if_error = Duration::from_secs(20);
        assert_eq!(Windows { stale_if_error, ..windows }.mark(asked), Some((Mark::IfError, stale_if_error)));
    }
}
