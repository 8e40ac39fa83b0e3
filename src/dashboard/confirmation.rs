//! How long a confirmation form is valid. If a browser restores a tab with a form days later, the form must not
//! delete entries that were written in the meantime. The form contains the time at which it was rendered, so any
//! instance can check its age.

use crate::clock::unix_millis;
use crate::http::Error;

use super::problem::Problem;

/// How long a form is valid.
const GOOD_FOR_MS: u64 = 10 * 60 * 1000;

/// By how much the clocks of two instances may differ.
const SKEW_MS: u64 = 60 * 1000;

/// The time that a form carries, as Unix time in milliseconds.
pub fn now() -> u64 {
    unix_millis().0
}

/// Checks the age of a form.
///
/// # Errors
/// The form has no valid time, its time is too long ago, or it is in the future.
pub fn check(issued: Option<&str>) -> Result<(), Problem> {
    let wrong = || Error::InvalidBody("`issued` must be the time of the form, in milliseconds".to_owned());
    let issued: u64 = issued.and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
    let now = now();
    let is_good = now.saturating_sub(issued) <= GOOD_FOR_MS && issued.saturating_sub(now) <= SKEW_MS;
    if is_good { Ok(()) } else { Err(Problem::OldForm) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_valid_for_some_minutes() {
        let now = now();
        for issued in [now, now - GOOD_FOR_MS / 2, now + SKEW_MS / 2] {
            assert!(check(Some(&issued.to_string())).is_ok(), "{issued}");
        }
        for issued in [0, now - GOOD_FOR_MS - 1, now + 2 * SKEW_MS, u64::MAX] {
            assert!(matches!(check(Some(&issued.to_string())), Err(Problem::OldForm)), "{issued}");
        }
        assert!(matches!(check(None), Err(Problem::Http(Error::InvalidBody(_)))));
        assert!(matches!(check(Some("yesterday")), Err(Problem::Http(Error::InvalidBody(_)))));
    }
}
