//! Reads the JSON of small bodies and of writes. A value is checked to be valid JSON, but never converted: it is a
//! slice of the request body, and responses contain the same bytes. The dates of entries are written by hand, because
//! every hit has one.

use std::cell::Cell;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::Error;
use super::reader::{self, Reader, Text};
use crate::model::{
    EtagList, Invalid, Kind, LeaseToken, Preconditions, SourceVersion, Tag, Tags, Ttl, UnixMillis, Write,
};

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
    is_absent: bool,
    stale_while_revalidate: Option<&'b RawValue>,
    preconditions: Preconditions,
}

impl<'b> WriteFields<'b> {
    /// The fields in the body of a PUT, whose preconditions are headers.
    pub const NAMES: [&'static str; 6] =
        ["value", "ttl", "tags", "source_version", "absent", "stale_while_revalidate"];
    /// The fields in an entry of an mset, without its key.
    pub const NAMES_IN_BATCH: [&'static str; 9] = [
        "value",
        "ttl",
        "tags",
        "source_version",
        "absent",
        "stale_while_revalidate",
        "if_match",
        "if_none_match",
        "lease",
    ];

    /// Reads the field with this index in [`WriteFields::NAMES_IN_BATCH`].
    ///
    /// # Errors
    /// The field is invalid.
    pub fn read(&mut self, index: usize, reader: &mut Reader<'b>) -> Result<(), Error> {
        match index {
            0 => self.value = Some(reader.value()?),
            1 => self.ttl = reader.optional()?,
            2 => self.tags = tags(reader)?,
            3 => self.preconditions.source_version = source_version(reader)?,
            4 => self.is_absent = switch(reader)?,
            5 => self.stale_while_revalidate = reader.optional()?,
            6 => self.preconditions.if_match = etags(reader, "if_match", EtagList::parse_strong)?,
            7 => self.preconditions.if_none_match = etags(reader, "if_none_match", EtagList::parse_weak)?,
            _ => {
                self.preconditions.lease = short_text(reader, "lease")?.map(|text| match text {
                    Text::Decoded(text) => LeaseToken::parse(&text).unwrap_or_else(LeaseToken::never_given),
                    Text::TooLong(_) => LeaseToken::never_given(),
                });
            }
        }
        Ok(())
    }

    /// The write. Its value is a slice of `body`.
    ///
    /// # Errors
    /// The value is missing, or there is one although the entry is absent, or a time is invalid.
    pub fn finish(self, body: &Bytes) -> Result<Write, Error> {
        let (kind, value) = match (self.value, self.is_absent) {
            (Some(value), false) => (Kind::Json, body.slice_ref(value.get().as_bytes())),
            (None, true) => (Kind::Absent, Bytes::from_static(ABSENT_VALUE)),
            (None, false) => return Err(reader::missing(Self::NAMES[0])),
            (Some(_), true) => return Err(Error::InvalidBody(BOTH.to_owned())),
        };
        let ttl = self.ttl.map(|ttl| Ttl::parse_json(ttl.get())).transpose()?;
        let grace = |text: &RawValue| Ttl::parse_json_or_zero("stale_while_revalidate", text.get());
        Ok(Write {
            value,
            kind,
            ttl,
            stale_while_revalidate: self.stale_while_revalidate.map(grace).transpose()?,
            tags: Tags::of(self.tags.unwrap_or_default()),
            preconditions: (self.preconditions != Preconditions::default()).then(|| Box::new(self.preconditions)),
        })
    }
}

/// Reads a source version; null is `None`.
fn source_version(reader: &mut Reader<'_>) -> Result<Option<SourceVersion>, Error> {
    let json = reader.optional()?;
    json.map(|json| SourceVersion::parse(json.get())).transpose().map_err(Error::InvalidBody)
}

/// What is stored as the value of an entry that says that there is no such thing.
const ABSENT_VALUE: &[u8] = b"null";

const BOTH: &str = "`value` and `absent` exclude each other: an entry with `\"absent\": true` has no value";

/// Reads true or false; null is false.
fn switch(reader: &mut Reader<'_>) -> Result<bool, Error> {
    match reader.optional()?.map(RawValue::get) {
        Some("true") => Ok(true),
        Some("false") | None => Ok(false),
        Some(_) => Err(Error::InvalidBody("expected true or false".to_owned())),
    }
}

/// Reads `*` or a list of ETags, as in a header; null is `None`.
fn etags(
    reader: &mut Reader<'_>,
    name: &str,
    parse: fn(&str) -> Result<EtagList, Invalid>,
) -> Result<Option<EtagList>, Error> {
    let invalid = |reason: String| Error::from(Invalid::Precondition(format!("{name}: {reason}")));
    match short_text(reader, name)? {
        None => Ok(None),
        Some(Text::Decoded(text)) => parse(&text).map(Some).map_err(|error| invalid(error.to_string())),
        Some(Text::TooLong(_)) => Err(invalid(format!("at most {MAX_ETAGS_LEN} bytes are allowed"))),
    }
}

/// The most bytes in a list of ETags.
pub const MAX_ETAGS_LEN: usize = 1024;

fn short_text<'b>(reader: &mut Reader<'b>, name: &str) -> Result<Option<Text<'b>>, Error> {
    if reader.null() {
        return Ok(None);
    }
    reader.text(MAX_ETAGS_LEN).map(Some).map_err(|error| reader::within(&format!("`{name}`"), error))
}

/// Reads a list of tags; null is `None`.
///
/// # Errors
/// A tag is invalid, or there are too many.
pub fn tags(reader: &mut Reader<'_>) -> Result<Option<Vec<Tag>>, Error> {
    if reader.null() { Ok(None) } else { tag_list(reader).map(Some) }
}

/// Parses a list of tags.
///
/// # Errors
/// It is no list, a tag is invalid, or there are too many.
pub fn tag_list(reader: &mut Reader<'_>) -> Result<Vec<Tag>, Error> {
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
    Ok(tags)
}

thread_local! {
    /// The day that was formatted last: most entries of a cache were written on the same day.
    static DAY: Cell<Day> = const { Cell::new(Day { number: 0, text: *b"1970-01-01" }) };
}

#[derive(Clone, Copy)]
struct Day {
    /// Days since 1970.
    number: u64,
    text: [u8; 10],
}

/// Like [`UnixMillis::to_rfc3339`], but written by hand, because every hit formats a date: no allocation and no
/// `format!`.
pub fn seconds_date(millis: u64) -> [u8; 20] {
    let seconds = millis.min(UnixMillis::LATEST_DATE.0) / 1000;
    let (number, time) = (seconds / 86_400, seconds % 86_400);
    let mut day = DAY.get();
    if day.number != number {
        day = Day { number, text: day_text(number) };
        DAY.set(day);
    }
    let mut text = *b"0000-00-00T00:00:00Z";
    text[..10].copy_from_slice(&day.text);
    for (place, number) in [(11, time / 3600), (14, time / 60 % 60), (17, time % 60)] {
        text[place] += (number / 10) as u8;
        text[place + 1] += (number % 10) as u8;
    }
    text
}

/// Converts days since 1970 to a date with Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn day_text(number: u64) -> [u8; 10] {
    let days = number + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // The algorithm counts months from March.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let mut text = *b"0000-00-00";
    for (place, number) in [(0, year / 100), (2, year % 100), (5, month), (8, day)] {
        text[place] += (number / 10) as u8;
        text[place + 1] += (number % 10) as u8;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_date_equals_the_one_of_the_library(millis in 0..=UnixMillis::LATEST_DATE.0 + 1) {
            let expected = UnixMillis(millis).to_rfc3339();
            prop_assert_eq!(seconds_date(millis), expected.as_bytes());
            // Again, now that the day is known.
            prop_assert_eq!(seconds_date(millis), expected.as_bytes());
        }
    }

    #[test]
    fn a_date_beyond_the_last_year_does_not_panic() {
        assert_eq!(&seconds_date(u64::MAX), b"9999-12-31T23:59:59Z");
    }
}
