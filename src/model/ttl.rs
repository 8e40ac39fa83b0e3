//! Time to live.

use std::num::NonZeroU64;
use std::time::Duration;

use super::invalid::{Invalid, quoted};

/// A time to live in whole seconds, 1 to [`Ttl::MAX_SECONDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(NonZeroU64);

impl Ttl {
    /// 100 years: longer than any cache needs, and far too small for an overflow.
    pub const MAX_SECONDS: u64 = 100 * 365 * 24 * 3600;

    /// # Errors
    /// [`Invalid::Ttl`] outside 1 to [`Ttl::MAX_SECONDS`].
    pub fn from_seconds(seconds: u64) -> Result<Self, Invalid> {
        match NonZeroU64::new(seconds) {
            Some(valid) if seconds <= Self::MAX_SECONDS => Ok(Self(valid)),
            _ => Err(Self::refused(&seconds.to_string())),
        }
    }

    /// Parses the text of a JSON value, so that the error can show values like `1.5`, `-1` and `2^64`.
    ///
    /// # Errors
    /// [`Invalid::Ttl`] for anything but a whole number within the bounds.
    pub fn parse_json(text: &str) -> Result<Self, Invalid> {
        whole_number(text).map_or_else(|| Err(Self::refused(text)), Self::from_seconds)
    }

    fn refused(text: &str) -> Invalid {
        Invalid::Ttl(format!(
            "`ttl` must be a whole number of seconds from 1 to {}, not {}",
            Self::MAX_SECONDS,
            quoted(text)
        ))
    }

    pub fn as_duration(self) -> Duration {
        Duration::from_secs(self.0.get())
    }

    pub fn as_seconds(self) -> u64 {
        self.0.get()
    }

    pub fn as_millis(self) -> u64 {
        self.0.get() * 1000
    }
}

/// Parses a JSON number that is whole and not negative. `60.0` is accepted, because languages that only have floats
/// write 60 like that.
pub fn whole_number(text: &str) -> Option<u64> {
    let digits = match text.split_once('.') {
        Some((digits, zeros)) if !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0') => digits,
        _ => text,
    };
    digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_within_the_bounds_parse() {
        assert_eq!(Ttl::parse_json("1").unwrap().as_millis(), 1000);
        assert_eq!(Ttl::parse_json("60.0").unwrap().as_seconds(), 60);
        assert_eq!(Ttl::parse_json("3153600000.00").unwrap().as_seconds(), Ttl::MAX_SECONDS);
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "0",
            "-1",
            "1.5",
            "1.",
            ".0",
            "1.0e1",
            "0.0",
            "1.00000000000000000001",
            "18446744073709551616",
            "\"60\"",
            "true",
            "1e3",
            "3153600001",
            "+1",
            "",
        ] {
            assert!(matches!(Ttl::parse_json(text), Err(Invalid::Ttl(_))), "{text}");
        }
    }
}
