//! Times to live as commands give them: relative or absolute, in seconds or milliseconds.

use super::decode::integer;
use super::failure::{Failure, NOT_AN_INTEGER};
use crate::clock::unix_millis;
use crate::model::Ttl;

/// What a number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Milliseconds in one.
    pub millis: i64,
    /// Counted from 1970, not from now.
    pub is_absolute: bool,
}

impl Unit {
    /// The unit of an option: `EX`, `PX`, `EXAT` or `PXAT`.
    pub fn of_option(word: &[u8]) -> Option<Self> {
        let unit = |millis, is_absolute| Some(Self { millis, is_absolute });
        match &*word.to_ascii_uppercase() {
            b"EX" => unit(1000, false),
            b"PX" => unit(1, false),
            b"EXAT" => unit(1000, true),
            b"PXAT" => unit(1, true),
            _ => None,
        }
    }
}

/// When an entry is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    In(Ttl),
    /// The time is over already.
    Past,
}

/// Reads the number of an option that must be positive, as SET and GETEX need it.
///
/// # Errors
/// It is not a number, not positive, or too large.
pub fn positive(bytes: &[u8], unit: Unit, command: &str) -> Result<Expiry, Failure> {
    let number = integer(bytes).ok_or(NOT_AN_INTEGER)?;
    if number <= 0 { Err(invalid(command)) } else { expiry(number, unit, command) }
}

/// When an entry with this number goes.
///
/// # Errors
/// The number is too large.
pub fn expiry(number: i64, unit: Unit, command: &str) -> Result<Expiry, Failure> {
    let now = i64::try_from(unix_millis().0).unwrap_or(i64::MAX);
    let millis = number.checked_mul(unit.millis).ok_or_else(|| invalid(command))?;
    let left = if unit.is_absolute {
        millis - now.min(millis.saturating_add(1))
    } else {
        millis.checked_add(now).map(|_| millis).ok_or_else(|| invalid(command))?
    };
    Ok(u64::try_from(left).ok().and_then(Ttl::from_millis).map_or(Expiry::Past, Expiry::In))
}

fn invalid(command: &str) -> Failure {
    Failure::err(format!("invalid expire time in '{command}' command"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: Unit = Unit { millis: 1000, is_absolute: false };
    const MILLIS_SINCE_1970: Unit = Unit { millis: 1, is_absolute: true };

    #[test]
    fn numbers_are_relative_or_absolute() {
        assert_eq!(positive(b"2", SECONDS, "set"), Ok(Expiry::In(Ttl::from_millis(2000).unwrap())));
        assert_eq!(positive(b"1", MILLIS_SINCE_1970, "set"), Ok(Expiry::Past));
        assert_eq!(expiry(-1, SECONDS, "expire"), Ok(Expiry::Past));
        let in_a_minute = unix_millis().0 as i64 + 60_000;
        let Ok(Expiry::In(ttl)) = expiry(in_a_minute, MILLIS_SINCE_1970, "pexpireat") else {
            panic!("it is in future")
        };
        assert!((59_000..=60_000).contains(&ttl.as_millis()), "{ttl:?}");
        assert_eq!(Unit::of_option(b"exat"), Some(Unit { millis: 1000, is_absolute: true }));
        assert_eq!(Unit::of_option(b"NX"), None);
    }

    #[test]
    fn numbers_out_of_range_are_refused_in_the_words_of_redis() {
        let invalid = Err(Failure::err("invalid expire time in 'set' command"));
        for number in ["0", "-1", "9223372036854775807", "9223372036854775"] {
            assert_eq!(positive(number.as_bytes(), SECONDS, "set"), invalid, "{number}");
        }
        assert_eq!(positive(b"x", SECONDS, "set"), Err(NOT_AN_INTEGER));
    }
}
