//! Time to live.

use std::num::NonZeroU64;
use std::time::Duration;

use super::invalid::{Invalid, quoted};
use super::part::Part;

/// A time to live in milliseconds, at most [`Ttl::MAX_SECONDS`]. Users set whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(NonZeroU64);

/// Milliseconds in a second.
const MILLIS: NonZeroU64 = NonZeroU64::new(1000).expect("not zero");

impl Ttl {
    /// 100 years: longer than any cache needs, and far too small for an overflow.
    pub const MAX_SECONDS: u64 = 100 * 365 * 24 * 3600;

    /// # Errors
    /// [`Invalid::Ttl`] outside 1 to [`Ttl::MAX_SECONDS`].
    pub fn from_seconds(seconds: u64) -> Result<Self, Invalid> {
        match NonZeroU64::new(seconds) {
            Some(valid) if seconds <= Self::MAX_SECONDS => Ok(Self(valid.saturating_mul(MILLIS))),
            _ => Err(Self::refused(&seconds.to_string())),
        }
    }

    /// At most [`Ttl::MAX_SECONDS`]; `None` for 0.
    pub fn from_millis(millis: u64) -> Option<Self> {
        NonZeroU64::new(millis.min(Self::MAX_SECONDS * MILLIS.get())).map(Self)
    }

    /// Parses the text of a JSON value, so that the error can show values like `1.5`, `-1` and `2^64`.
    ///
    /// # Errors
    /// [`Invalid::Ttl`] for anything but a whole number within the bounds.
    pub fn parse_json(text: &str) -> Result<Self, Invalid> {
        whole_number(text).map_or_else(|| Err(Self::refused(text)), Self::from_seconds)
    }

    /// Like [`Ttl::parse_json`] for another field, which may also be 0.
    ///
    /// # Errors
    /// [`Invalid::Ttl`] that names the field.
    pub fn parse_json_or_zero(field: &str, text: &str) -> Result<Duration, Invalid> {
        let seconds = whole_number(text).filter(|seconds| *seconds <= Self::MAX_SECONDS);
        seconds.map(Duration::from_secs).ok_or_else(|| Self::refused_field(field, 0, text))
    }

    fn refused(text: &str) -> Invalid {
        Self::refused_field("ttl", 1, text)
    }

    fn refused_field(field: &str, least: u64, text: &str) -> Invalid {
        Invalid::Ttl(format!(
            "`{field}` must be a whole number of seconds from {least} to {}, not {}",
            Self::MAX_SECONDS,
            quoted(text)
        ))
    }

    /// A TTL that is shorter by up to `jitter`. Which part of that it is depends evenly on `random`.
    pub fn shortened(self, jitter: Part, random: u64) -> Self {
        let most = jitter.of(self.as_millis());
        let less = (u128::from(random) * (u128::from(most) + 1)) >> u64::BITS;
        // `less` is at most `most`. Only a jitter of the whole TTL could leave nothing.
        NonZeroU64::new(self.as_millis() - less as u64).map_or(self, Self)
    }

    pub fn as_duration(self) -> Duration {
        Duration::from_millis(self.0.get())
    }

    /// Whole seconds, rounded up.
    pub fn as_seconds(self) -> u64 {
        self.0.get().div_ceil(MILLIS.get())
    }

    pub fn as_millis(self) -> u64 {
        self.0.get()
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
    fn a_jitter_shortens_by_up_to_its_part_and_never_lengthens() {
        let (ttl, tenth) = (Ttl::from_seconds(100).unwrap(), Part::rounded(0.1).unwrap());
        let shortened = |random| ttl.shortened(tenth, random).as_millis();
        assert_eq!((shortened(0), shortened(u64::MAX / 2), shortened(u64::MAX)), (100_000, 95_000, 90_000));
        assert_eq!(ttl.shortened(Part::NOTHING, u64::MAX), ttl);
        let most = Part::rounded(0.5).unwrap();
        assert_eq!(Ttl::from_seconds(1).unwrap().shortened(most, u64::MAX).as_millis(), 500);
        assert_eq!(Ttl::from_seconds(1).unwrap().shortened(most, u64::MAX).as_seconds(), 1);
        assert!(Ttl::from_seconds(Ttl::MAX_SECONDS).unwrap().shortened(Part::ALL, u64::MAX).as_millis() > 0);
    }

    #[test]
    fn a_field_that_may_be_zero_is_named_in_its_error() {
        assert_eq!(Ttl::parse_json_or_zero("grace", "0"), Ok(Duration::ZERO));
        assert_eq!(Ttl::parse_json_or_zero("grace", "30.0"), Ok(Duration::from_secs(30)));
        for text in ["-1", "1.5", "3153600001", "null"] {
            let Err(Invalid::Ttl(error)) = Ttl::parse_json_or_zero("grace", text) else { panic!("{text}") };
            assert!(error.starts_with("`grace` must be"), "{error}");
        }
    }

    #[test]
    fn milliseconds_are_kept_and_bounded() {
        assert_eq!(Ttl::from_millis(1).unwrap().as_duration(), Duration::from_millis(1));
        assert_eq!(Ttl::from_millis(u64::MAX), Ttl::from_seconds(Ttl::MAX_SECONDS).ok());
        assert_eq!(Ttl::from_millis(0), None);
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
