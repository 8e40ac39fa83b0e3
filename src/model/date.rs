//! Dates: Unix milliseconds, and their text as in RFC 3339.

use std::time::Duration;

use jiff::SignedDuration;
use jiff::civil::{DateTime, date};
use jiff::fmt::temporal::Pieces;
use serde::{Deserialize, Serialize};

const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// Milliseconds since the Unix epoch. The dates of an entry are by the clock of the shard that owns the entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The end of the year 9999: the latest date that is shown, because the dates of the databases have this limit.
    /// (A `jiff::Timestamp` ends two days earlier, so this file uses `DateTime`.)
    pub const LATEST_DATE: Self = Self(253_402_300_799_999);

    /// As RFC 3339 in UTC, to the second.
    pub fn to_rfc3339(self) -> String {
        format!("{:.0}Z", self.date_time())
    }

    /// As RFC 3339 in UTC, to the millisecond.
    pub fn to_rfc3339_millis(self) -> String {
        format!("{:.3}Z", self.date_time())
    }

    fn date_time(self) -> DateTime {
        EPOCH.saturating_add(Duration::from_millis(self.min(Self::LATEST_DATE).0))
    }

    /// Parses an RFC 3339 date with any offset from UTC; `None` if it is invalid. Rounds up to the millisecond: a
    /// stored time that is earlier than the date is also earlier than the result.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        if !has_separators(text.as_bytes()) {
            return None;
        }
        let pieces = Pieces::parse(text).ok()?;
        let offset = SignedDuration::from_secs(pieces.to_numeric_offset()?.seconds().into());
        if offset.abs() >= SignedDuration::from_hours(24) {
            return None;
        }
        let since_epoch = pieces.date().to_datetime(pieces.time()?).duration_since(EPOCH) - offset;
        // A date before 1970 is earlier than every stored date, so 0 has the same meaning.
        let since_epoch = Duration::try_from(since_epoch).unwrap_or_default();
        u64::try_from(since_epoch.as_nanos().div_ceil(1_000_000)).ok().map(Self)
    }
}

/// Whether the separators are where RFC 3339 has them. The library also accepts other forms of ISO 8601, such as
/// `20261120T12Z`.
fn has_separators(text: &[u8]) -> bool {
    let has = |at: usize, separator: u8| text.get(at) == Some(&separator);
    let is_offset = matches!(text, [.., b'Z' | b'z'] | [.., b'+' | b'-', _, _, b':', _, _]);
    has(4, b'-') && has(7, b'-') && has(13, b':') && has(16, b':') && !has(19, b',') && is_offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_parsed_with_any_offset() {
        for (text, millis) in [
            ("1970-01-01T00:00:01Z", 1000),
            ("1970-01-01t00:00:01.5z", 1500),
            ("1970-01-01 00:00:01+00:00", 1000),
            ("1970-01-01T00:00:00.0011Z", 2),
            ("1970-01-01T02:00:01+02:00", 1000),
            ("1970-01-01T00:00:00+14:00", 0),
            ("1969-12-31T23:00:01-01:00", 1000),
            ("1968-02-29T00:00:00Z", 0),
            ("0000-01-01T00:00:00Z", 0),
            ("2400-02-29T00:00:00Z", 13_574_563_200_000),
            ("9999-12-31T23:59:59.999Z", UnixMillis::LATEST_DATE.0),
            ("9999-12-31T23:59:59.999-23:59", UnixMillis::LATEST_DATE.0 + 86_340_000),
        ] {
            assert_eq!(UnixMillis::parse_rfc3339(text), Some(UnixMillis(millis)), "{text}");
        }
        for text in [
            "",
            "soon",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-13-01T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "-100-01-01T00:00:00Z",
            "2026-01-01T00:00:00+2:00",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00+02:00:00",
            "2026-01-01T00:00:00,5Z",
            "2026-01-01T00:00Z",
            "20260101T000000Z",
            "2026-01-01T00:00:00Z[UTC]",
            "ä0:00",
        ] {
            assert_eq!(UnixMillis::parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn dates_are_written_in_utc_and_never_panic() {
        let date = UnixMillis(1_704_067_200_942);
        assert_eq!(date.to_rfc3339(), "2024-01-01T00:00:00Z");
        assert_eq!(date.to_rfc3339_millis(), "2024-01-01T00:00:00.942Z");
        assert_eq!(UnixMillis(0).to_rfc3339_millis(), "1970-01-01T00:00:00.000Z");
        assert_eq!(UnixMillis(u64::MAX).to_rfc3339_millis(), "9999-12-31T23:59:59.999Z");
    }
}
