//! Formats numbers and times for people. The pages have the exact numbers as well, in `data-value` and titles.

use std::time::Duration;

use crate::model::UnixMillis;

/// Shown in place of an unknown number.
pub const UNKNOWN: &str = "–";

/// All digits, in groups of three: `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A count with its noun: `one` is the singular, `several` the plural.
pub fn of(number: u64, one: &str, several: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { several })
}

/// A number of at least ten thousand as three digits and a letter: `12.3k`, `1.23M`. Smaller numbers have all digits
/// before the point.
pub fn short(number: f64) -> String {
    let steps = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    if !number.is_finite() {
        return UNKNOWN.to_owned();
    }
    // A number that rounds up to the next unit is shown in that unit.
    let step = steps.iter().find(|(unit, _)| number >= unit * if *unit == 1e3 { 10.0 } else { 0.9995 });
    match step {
        Some((unit, letter)) => format!("{}{letter}", three_digits(number / unit)),
        None if number >= 100.0 => count(number.round() as u64),
        None => three_digits(number),
    }
}

/// At most three digits, without trailing zeros after the point.
fn three_digits(number: f64) -> String {
    let decimals = if number >= 99.95 {
        0
    } else if number >= 9.995 {
        1
    } else {
        2
    };
    let text = format!("{number:.decimals$}");
    if decimals == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

/// Bytes in the units of memory: `1.5 MiB`.
pub fn bytes(number: u64) -> String {
    let steps = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    // Numbers just below a unit would be rounded to `1024 KiB`: use that unit.
    match steps.iter().find(|(unit, _)| number >= *unit - unit / 2048) {
        Some((unit, name)) => format!("{} {name}", three_digits(number as f64 / *unit as f64)),
        None => format!("{number} B"),
    }
}

/// A fraction of 1 in percent: `97.3 %`. Only exactly 1 is shown as 100, and only exactly 0 as 0.
pub fn percent(part: f64) -> String {
    if !part.is_finite() {
        return UNKNOWN.to_owned();
    }
    let shown = (part * 1000.0).round() / 10.0;
    if shown >= 100.0 && part < 1.0 {
        return "99.9 %".to_owned();
    }
    if shown <= 0.0 && part > 0.0 {
        return "0.1 %".to_owned();
    }
    format!("{shown} %")
}

/// A rate per second.
pub fn rate(number: f64) -> String {
    format!("{} /s", short(number))
}

/// A short time: `85 µs`, `1.2 ms`, `3.4 s`.
pub fn latency(time: Duration) -> String {
    let micros = time.as_nanos() as f64 / 1000.0;
    if micros < 999.5 {
        format!("{} µs", three_digits(micros))
    } else if micros < 999_500.0 {
        format!("{} ms", three_digits(micros / 1000.0))
    } else {
        format!("{} s", three_digits(micros / 1e6))
    }
}

/// A long time in its two largest units: `2 d 3 h`, `5 min 10 s`.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let Some(first) = units.iter().position(|(unit, _)| seconds >= *unit) else { return "0 s".to_owned() };
    let (unit, name) = units[first];
    let mut text = format!("{} {name}", seconds / unit);
    if let Some((smaller, name)) = units.get(first + 1) {
        let rest = seconds % unit / smaller;
        if rest > 0 {
            text.push_str(&format!(" {rest} {name}"));
        }
    }
    text
}

/// A date in UTC, for people: `2026-11-20 12:00:05`.
pub fn date(at: UnixMillis) -> String {
    at.to_rfc3339().replace('T', " ").trim_end_matches('Z').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!((of(1, "key", "keys"), of(2, "key", "keys")), ("1 key".into(), "2 keys".into()));
    }

    #[test]
    fn large_numbers_are_short_and_small_ones_exact() {
        for (number, text) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (12.34, "12.3"),
            (99.96, "100"),
            (1234.4, "1,234"),
            (9999.0, "9,999"),
            (12_345.0, "12.3k"),
            (999_600.0, "1M"),
            (1_234_567.0, "1.23M"),
            (f64::NAN, UNKNOWN),
        ] {
            assert_eq!(short(number), text, "{number}");
        }
    }

    #[test]
    fn bytes_have_the_units_of_memory() {
        for (number, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1 MiB"),
            (5 << 30, "5 GiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn only_exactly_one_is_100_percent_and_only_zero_is_0_percent() {
        for (part, text) in
            [(0.0, "0 %"), (0.000_01, "0.1 %"), (0.973_4, "97.3 %"), (0.999_99, "99.9 %"), (1.0, "100 %")]
        {
            assert_eq!(percent(part), text, "{part}");
        }
    }

    #[test]
    fn times_have_the_unit_that_fits() {
        for (nanos, text) in [(850, "0.85 µs"), (85_000, "85 µs"), (999_900, "1 ms"), (1_234_000_000, "1.23 s")] {
            assert_eq!(latency(Duration::from_nanos(nanos)), text);
        }
        for (seconds, text) in [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (183_600, "2 d 3 h")] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn dates_are_in_utc_and_never_panic() {
        assert_eq!(date(UnixMillis(1_704_067_205_999)), "2024-01-01 00:00:05");
        assert_eq!(date(UnixMillis(u64::MAX)), "9999-12-31 23:59:59");
    }
}
