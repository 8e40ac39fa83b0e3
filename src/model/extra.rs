//! What an entry can have besides its value and its times: its kind, its grace and its mark.
//!
//! Ordinary entries have none of these. In the metadata of a shard they are the field `extra`: words separated by
//! spaces, each of them a letter, perhaps followed by a number. `lua/extra.lua` reads the same field in scripts.
//!
//! | word | meaning |
//! |---|---|
//! | `a` | the entry says that the source has no such thing; its value is the JSON `null` |
//! | `b` | the value is any bytes, not JSON |
//! | `g30000` | the grace: the entry goes 30,000 ms after the end of its freshness; `g0`: the write asked for none |
//! | `m1` | marked stale, and answered during its grace while somebody refreshes it |
//! | `m0` | marked stale, and answered only in place of an error |

use std::fmt::Write as _;
use std::time::Duration;

/// What the value of an entry is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A JSON document.
    #[default]
    Json,
    /// There is no such thing in the source; the value is the JSON `null`.
    Absent,
    /// Any bytes, perhaps none.
    Bytes,
}

/// Whether the freshness of an entry was ended before its time, and how the entry may be answered since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    #[default]
    Unmarked,
    /// While somebody refreshes it.
    WhileRevalidating,
    /// In place of an error of its shard.
    IfError,
}

/// Kind, grace and mark of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    pub kind: Kind,
    pub mark: Mark,
    /// Whether the write or the policy gave the entry a grace, perhaps of zero. Not an `Option`, which would make every
    /// copy larger.
    has_grace: bool,
    /// The time between the end of freshness and the time at which the entry goes, in ms.
    grace_ms: u64,
}

impl Extra {
    pub fn new(kind: Kind, mark: Mark, grace: Duration) -> Self {
        let grace = Some(grace).filter(|grace| !grace.is_zero());
        Self { mark, ..Self::of_write(kind, grace) }
    }

    /// For a new value. A grace of zero is remembered: a mark then does not use that of the policy.
    pub fn of_write(kind: Kind, grace: Option<Duration>) -> Self {
        let ms = |grace: Duration| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        Self { kind, mark: Mark::Unmarked, has_grace: grace.is_some(), grace_ms: grace.map_or(0, ms) }
    }

    /// Parses the words. Unknown words are ignored; `None` if a number is wrong.
    pub fn parse(text: &str) -> Option<Self> {
        let mut extra = Self::default();
        for word in text.split_ascii_whitespace() {
            match word.split_at_checked(1)? {
                ("a", "") => extra.kind = Kind::Absent,
                ("b", "") => extra.kind = Kind::Bytes,
                ("g", ms) => (extra.has_grace, extra.grace_ms) = (true, ms.parse().ok()?),
                ("m", "1") => extra.mark = Mark::WhileRevalidating,
                ("m", _) => extra.mark = Mark::IfError,
                _ => {}
            }
        }
        Some(extra)
    }

    /// The words; empty for an ordinary entry.
    pub fn to_text(self) -> String {
        let mut text = String::new();
        text.push_str(match self.kind {
            Kind::Json => "",
            Kind::Absent => "a ",
            Kind::Bytes => "b ",
        });
        if self.has_grace {
            write!(text, "g{} ", self.grace_ms).expect("writing to memory does not fail");
        }
        text.push_str(match self.mark {
            Mark::Unmarked => "",
            Mark::WhileRevalidating => "m1",
            Mark::IfError => "m0",
        });
        text.truncate(text.trim_end().len());
        text
    }

    /// The time between the end of freshness and the time at which the entry goes.
    pub fn grace(self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }

    /// The grace that its write had, perhaps zero; `None` if the write did not say.
    pub fn own_grace(self) -> Option<Duration> {
        self.has_grace.then(|| self.grace())
    }

    /// For how long after the end of its freshness the entry is answered while somebody refreshes it.
    pub fn stale_while_revalidate(self) -> Duration {
        if self.mark == Mark::IfError { Duration::ZERO } else { self.grace() }
    }

    /// Whether the entry counts for preconditions: not if it says that there is no such thing, or if it is kept only in
    /// place of errors.
    pub fn is_present(self) -> bool {
        self.kind != Kind::Absent && self.mark != Mark::IfError
    }

    pub fn is_marked(self) -> bool {
        self.mark != Mark::Unmarked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_read_as_they_were_written() {
        let grace = Duration::from_millis(1234);
        for (extra, text) in [
            (Extra::default(), ""),
            (Extra::new(Kind::Absent, Mark::Unmarked, Duration::ZERO), "a"),
            (Extra::new(Kind::Bytes, Mark::Unmarked, Duration::ZERO), "b"),
            (Extra::new(Kind::Bytes, Mark::IfError, grace), "b g1234 m0"),
            (Extra::new(Kind::Json, Mark::Unmarked, grace), "g1234"),
            (Extra::of_write(Kind::Bytes, Some(Duration::ZERO)), "b g0"),
            (Extra::new(Kind::Absent, Mark::WhileRevalidating, grace), "a g1234 m1"),
            (Extra::new(Kind::Json, Mark::IfError, grace), "g1234 m0"),
        ] {
            assert_eq!(extra.to_text(), text);
            assert_eq!(Extra::parse(text), Some(extra));
        }
        assert_eq!(Extra::parse("z9 a"), Extra::parse("a"), "a word of a later release");
        assert_eq!(Extra::parse("g1x"), None);
    }

    #[test]
    fn an_entry_that_is_kept_for_errors_is_not_answered_otherwise() {
        let grace = Duration::from_secs(1);
        let window = |mark| Extra::new(Kind::Json, mark, grace).stale_while_revalidate();
        assert_eq!(window(Mark::Unmarked), grace);
        assert_eq!(window(Mark::WhileRevalidating), grace);
        assert_eq!(window(Mark::IfError), Duration::ZERO);
    }
}
