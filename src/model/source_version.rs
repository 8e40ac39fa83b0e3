//! Source versions: a program's own count of the changes at its source, so that the cache keeps the newest state
//! although writes to the cache overtake each other.

use super::ttl::whole_number;

/// A source's own count, 0 to 2^63 - 1. A write with a smaller one never replaces a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceVersion(u64);

impl SourceVersion {
    pub const MAX: u64 = i64::MAX as u64;

    /// Parses a whole number, as it stands in JSON or in a query.
    ///
    /// # Errors
    /// Says what is expected, for anything but a whole number from 0 to [`SourceVersion::MAX`].
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = whole_number(text).filter(|number| *number <= Self::MAX);
        let invalid = || format!("`source_version` must be a whole number from 0 to {}", Self::MAX);
        number.map(Self).ok_or_else(invalid)
    }

    pub fn number(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_version_is_a_whole_number_below_2_to_the_63() {
        for (text, expected) in [
            ("0", 0),
            ("7", 7),
            ("7.0", 7),
            ("9007199254740993", (1 << 53) + 1),
            ("9223372036854775807", SourceVersion::MAX),
        ] {
            assert_eq!(SourceVersion::parse(text).map(SourceVersion::number), Ok(expected));
        }
        for text in
            ["-1", "-0", "1.5", "1e3", "\"1\"", "true", "", "+1", "9223372036854775808", "18446744073709551616"]
        {
            assert!(SourceVersion::parse(text).is_err(), "{text}");
        }
    }
}
