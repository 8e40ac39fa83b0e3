//! Reads the JSON of small bodies and of writes, and formats and parses dates. A value is checked to be valid JSON, but
//! never converted: it is a slice of the request body, and responses contain the same bytes.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::Error;
use super::reader::{self, Reader, Text};
use crate::model::{Invalid, Tag, Tags, Ttl, UnixMillis, Write};

/// The calendar repeats every 400 years. This is five such cycles, in years and in milliseconds.
const CYCLE_YEARS: i64 = 5 * 400;
const CYCLE_MILLIS: i64 = 5 * 146_097 * 24 * 3600 * 1000;

/// Parses a small body that must be one JSON object. For large bodies, use `reader`.
///
/// # Errors
/// [`Error::InvalidBody`], which names the field and the position.
pub fn object<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Error> {
    // serde would also read a struct from an array, by position. Nobody intends that, so only an object is accepted.
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => {
            let mut deserializer = serde_json::Deserializer::from_slice(body);
            let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
                let path = error.path().to_string();
                // The path `.` means the whole body.
                let place = if path == "." { String::new() } else { format!("`{path}`: ") };
                Error::InvalidBody(format!("{place}{}", error.into_inner()))
            })?;
            deserializer.end().map_err(|error| Error::InvalidBody(error.to_string()))?;
            Ok(parsed)
        }
        Some(_) => Err(Error::InvalidBody("expected a JSON object".to_owned())),
        None => Err(Error::InvalidBody("the body is empty; expected a JSON object".to_owned())),
    }
}

/// The fields of a write, in the body of a PUT or in an entry of an mset.
#[derive(Debug, Default)]
pub struct WriteFields<'b> {
    value: Option<&'b RawValue>,
    ttl: Option<&'b RawValue>,
    tags: Option<Vec<Tag>>,
}

impl<'b> WriteFields<'b> {
    pub const NAMES: [&'static str; 3] = ["value", "ttl", "tags"];

    /// Reads the field with this index in [`WriteFields::NAMES`].
    ///
    /// # Errors
    /// The field is invalid.
    pub fn read(&mut self, index: usize, reader: &mut Reader<'b>) -> Result<(), Error> {
        match index {
            0 => self.value = Some(reader.value()?),
            1 => self.ttl = reader.optional()?,
            _ => self.tags = tags(reader)?,
        }
        Ok(())
    }

    /// The write. Its value is a slice of `body`.
    ///
    /// # Errors
    /// The value is missing, or the TTL is invalid.
    pub fn finish(self, body: &Bytes) -> Result<Write, Error> {
        let value = self.value.ok_or_else(|| reader::missing(Self::NAMES[0]))?;
        let ttl = self.ttl.map(|ttl| Ttl::parse_json(ttl.get())).transpose()?;
        Ok(Write {
            value: body.slice_ref(value.get().as_bytes()),
            ttl,
            tags: Tags::of(self.tags.unwrap_or_default()),
        })
    }
}

/// Reads a list of tags; null is `None`.
fn tags(reader: &mut Reader<'_>) -> Result<Option<Vec<Tag>>, Error> {
    if reader.null() {
        return Ok(None);
    }
    let mut tags = Vec::new();
    reader.array(|index, reader| {
        if tags.len() == Tags::MAX {
            return Err(Tags::too_many().into());
        }
        match reader.text(Tag::MAX_LEN).map_err(|error| reader::within(&format!("`tags[{index}]`"), error))? {
            Text::Decoded(text) => tags.push(Tag::parse(text)?),
            Text::TooLong(_) => {
                return Err(Invalid::Tag(format!(
                    "a tag must have 1 to {} bytes, `tags[{index}]` has more",
                    Tag::MAX_LEN
                ))
                .into());
            }
        }
        Ok(())
    })?;
    Ok(Some(tags))
}

/// Formats Unix milliseconds as RFC 3339 in UTC, to the second.
pub fn date(millis: u64) -> String {
    String::from_utf8_lossy(&seconds_date(millis)).into_owned()
}

/// Like [`date`], but fast, because every hit formats a date: no allocation and no `format!`. Converts days to a date
/// with Howard Hinnant's `civil_from_days` (<https://howardhinnant.github.io/date_algorithms.html>).
pub fn seconds_date(millis: u64) -> [u8; 20] {
    let seconds = millis.min(UnixMillis::LATEST_DATE.0) / 1000;
    let (days, time) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // The algorithm counts months from March.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let mut text = *b"0000-00-00T00:00:00Z";
    let numbers = [(0, year / 100), (2, year % 100), (5, month), (8, day)];
    let times = [(11, time / 3600), (14, time / 60 % 60), (17, time % 60)];
    for (place, number) in numbers.into_iter().chain(times) {
        text[place] += (number / 10) as u8;
        text[place + 1] += (number % 10) as u8;
    }
    text
}

/// Formats a date as RFC 3339 in UTC, to the millisecond.
pub fn date_to_the_millisecond(date: UnixMillis) -> String {
    let date = Duration::from_millis(date.0.min(UnixMillis::LATEST_DATE.0));
    humantime::format_rfc3339_millis(UNIX_EPOCH + date).to_string()
}

/// Parses an RFC 3339 date with any offset from UTC. Rounds up to the millisecond: a stored time that is earlier than
/// the date is also earlier than the result.
pub fn parse_date(text: &str) -> Option<UnixMillis> {
    let (local, offset_minutes) = match text.strip_suffix(['Z', 'z']) {
        Some(local) => (local, 0),
        None => {
            let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
            (local, offset_minutes(offset)?)
        }
    };
    let (year, rest) = local.split_at_checked(4)?;
    let year: i64 = year.parse().ok().filter(|_| year.bytes().all(|byte| byte.is_ascii_digit()))?;
    // humantime starts at 1970, so earlier years are shifted by a multiple of the 400-year cycle.
    let cycles = i64::from(year < 1970);
    let shown = format!("{:04}{}Z", year + cycles * CYCLE_YEARS, rest.replacen(['t', ' '], "T", 1));
    let local = humantime::parse_rfc3339(&shown).ok()?;
    let millis = local.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().div_ceil(1_000_000);
    let millis = i64::try_from(millis).ok()?.saturating_sub(cycles * CYCLE_MILLIS);
    // A date before 1970 is earlier than every stored date, so 0 has the same meaning.
    let utc = millis.saturating_sub(offset_minutes * 60_000).max(0);
    u64::try_from(utc).ok().map(UnixMillis)
}

/// Converts an offset such as `+02:00` to minutes.
fn offset_minutes(text: &str) -> Option<i64> {
    let [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] = *text.as_bytes() else { return None };
    let number = |tens: u8, ones: u8| {
        (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
    };
    let (hours, minutes) = (number(h1, h2)?, number(m1, m2)?);
    let east = (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)?;
    Some(if sign == b'+' { east } else { -east })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_date_equals_the_one_of_humantime(millis in 0..=UnixMillis::LATEST_DATE.0) {
            let expected = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(millis)).to_string();
            prop_assert_eq!(date(millis), expected);
        }
    }

    #[test]
    fn a_date_beyond_the_last_year_does_not_panic() {
        assert_eq!(date(u64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn dates_are_parsed_with_any_offset() {
        for (text, millis) in [
            ("1970-01-01T00:00:01Z", 1000),
            ("1970-01-01t00:00:01.5z", 1500),
            ("1970-01-01T00:00:00.0011Z", 2),
            ("1970-01-01T02:00:01+02:00", 1000),
            ("1970-01-01T00:00:00+14:00", 0),
            ("1969-12-31T23:00:01-01:00", 1000),
            ("1968-02-29T00:00:00Z", 0),
            ("0000-01-01T00:00:00Z", 0),
            ("2400-02-29T00:00:00Z", 13_574_563_200_000),
        ] {
            assert_eq!(parse_date(text), Some(UnixMillis(millis)), "{text}");
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
            "ä0:00",
        ] {
            assert_eq!(parse_date(text), None, "{text}");
        }
        assert_eq!(date_to_the_millisecond(UnixMillis(1_704_067_200_042)), "2024-01-01T00:00:00.042Z");
    }
}
