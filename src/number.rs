//! Numbers, sizes and times as people write and read them, on the pages of the dashboard and on the command line. The
//! pages have the exact numbers as well, in `data-value` and titles.

use std::time::Duration;

use indicatif::HumanCount;

use crate::model::UnixMillis;

/// Shown in place of an unknown number.
pub const UNKNOWN: &str = "–";

/// All digits, in groups of three: `1,234,567`.
pub fn count(number: u64) -> String {
    HumanCount(number).to_string()
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
    let decimals = match number {
        99.95.. => 0,
        9.995.. => 1,
        _ => 2,
    };
    let text = format!("{number:.decimals$}");
    if decimals == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

/// A size in the units of memory: `1.5 MiB`.
pub fn bytes(number: u64) -> String {
    let names = ["EiB", "PiB", "TiB", "GiB", "MiB", "KiB"];
    let steps = (1..=6).rev().map(|step| 1u64 << (10 * step)).zip(names);
    // Numbers just below a unit would be rounded to `1024 KiB`: use that unit.
    match steps.into_iter().find(|(unit, _)| number >= unit - unit / 2048) {
        Some((unit, name)) => format!("{} {name}", three_digits(number as f64 / unit as f64)),
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

/// A fraction of 1 in percent, always with one digit after the point, for columns of numbers: `50.0%`.
pub fn column_percent(part: f64) -> String {
    format!("{:.1}%", part * 100.0)
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

/// A time of whole seconds in days, hours, minutes and seconds, each with the name of the unit. Libraries would show
/// 90 days in average months.
fn in_units(seconds: u64, names: [&'static str; 4]) -> [(u64, &'static str); 4] {
    let [days, hours, minutes, rest] = names;
    [(seconds / 86_400, days), (seconds / 3600 % 24, hours), (seconds / 60 % 60, minutes), (seconds % 60, rest)]
}

/// A long time in its two largest units: `2 d 3 h`, `5 min 10 s`.
pub fn span(time: Duration) -> String {
    let units = in_units(time.as_secs(), ["d", "h", "min", "s"]);
    let first = units.iter().position(|(count, _)| *count > 0).unwrap_or(units.len() - 1);
    let (count, unit) = units[first];
    match units.get(first + 1) {
        Some((more, smaller)) if *more > 0 => format!("{count} {unit} {more} {smaller}"),
        _ => format!("{count} {unit}"),
    }
}

/// A time of whole seconds in the form that `--ttl` accepts: `1h 5m`, `90d`, `12s`.
pub fn seconds(seconds: u64) -> String {
    let units = in_units(seconds, ["d", "h", "m", "s"]).into_iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = units.map(|(count, unit)| format!("{count}{unit}")).collect();
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// A date in UTC, for people: `2026-11-20 12:00:05`.
pub fn date(at: UnixMillis) -> String {
    at.to_rfc3339().replace('T', " ").trim_end_matches('Z').to_owned()
}

/// Parses a time such as `90` (seconds), `5m` or `1h 30m`. An error has examples of the format, as the errors of the
/// functions below.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a time such as 90 (seconds), 5m or 1h30m, not {text:?}");
    match text.trim().parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text.trim()).map_err(|_| wrong()),
    }
}

/// Parses a time in whole seconds.
pub fn parse_seconds(text: &str) -> Result<u64, String> {
    let duration = parse_duration(text)?;
    match duration.subsec_nanos() {
        0 => Ok(duration.as_secs()),
        _ => Err(format!("expected whole seconds, not {text:?}")),
    }
}

/// Parses a TTL: whole seconds, at least one.
pub fn parse_ttl(text: &str) -> Result<u64, String> {
    match parse_seconds(text)? {
        0 => Err("a TTL is at least one second; without --ttl, the namespace's default TTL applies".to_owned()),
        seconds => Ok(seconds),
    }
}

/// Parses a time to wait, longer than 0. A time longer than a day becomes a day.
pub fn parse_wait(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("expected a time longer than 0".to_owned()),
        // A day is long enough for any wait here, and too short to overflow a clock.
        wait => Ok(wait.min(Duration::from_secs(24 * 3600))),
    }
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
            (u64::MAX, "16 EiB"),
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
        assert_eq!((column_percent(0.1234), column_percent(0.5)), ("12.3%".into(), "50.0%".into()));
    }

    #[test]
    fn times_have_the_unit_that_fits() {
        for (nanos, text) in [(850, "0.85 µs"), (85_000, "85 µs"), (999_900, "1 ms"), (1_234_000_000, "1.23 s")] {
            assert_eq!(latency(Duration::from_nanos(nanos)), text);
        }
        for (seconds, text) in [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (183_600, "2 d 3 h")] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        for (number, text) in [(0, "0s"), (90, "1m 30s"), (90 * 86_400, "90d"), (86_400 + 3_601, "1d 1h 1s")] {
            assert_eq!(seconds(number), text);
        }
    }

    #[test]
    fn dates_are_in_utc_and_never_panic() {
        assert_eq!(date(UnixMillis(1_704_067_205_999)), "2024-01-01 00:00:05");
        assert_eq!(date(UnixMillis(u64::MAX)), "9999-12-31 23:59:59");
    }

    #[test]
    fn times_are_seconds_or_have_a_unit() {
        for (text, seconds) in [("90", 90), ("5m", 300), ("1h30m", 5_400), ("2days", 172_800), (" 7s ", 7)] {
            assert_eq!(parse_ttl(text), Ok(seconds));
        }
        for text in ["", "0", "0s", "-1", "5 minutes ago", "1.5", "500ms", "x", "99999999999999999999"] {
            assert!(parse_ttl(text).is_err(), "{text}");
        }
        assert_eq!(parse_wait("250ms"), Ok(Duration::from_millis(250)));
        assert!(parse_wait("0").is_err());
    }
}
