//! Numbers, sizes and times as people write and read them.

use std::time::Duration;

/// Groups the digits: `1,234,567`.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size with its unit: `1.5 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    // Just below a MiB, rounding would give `1024.0 KiB`: use the next unit.
    while amount >= 1023.95 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// A fraction between 0 and 1 as a percentage: `12.3%`.
pub fn percent(part: f64) -> String {
    format!("{:.1}%", part * 100.0)
}

/// A time of whole seconds in units that `--ttl` also takes: `1h 5m`, `90d`, `12s`. `humantime` would show 90 days in
/// average months: `2months 29days 2h 52m 48s`.
pub fn seconds(seconds: u64) -> String {
    let units = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let parts: Vec<String> =
        units.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// Parses a time such as `90` (seconds), `5m` or `1h 30m`.
///
/// # Errors
/// Not a time. The message has examples of the format.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a time such as 90 (seconds), 5m or 1h30m, not {text:?}");
    match text.trim().parse::<u64>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text.trim()).map_err(|_| wrong()),
    }
}

/// Parses a time in whole seconds.
///
/// # Errors
/// Not a time, or not a whole number of seconds.
pub fn parse_seconds(text: &str) -> Result<u64, String> {
    let duration = parse_duration(text)?;
    match duration.subsec_nanos() {
        0 => Ok(duration.as_secs()),
        _ => Err(format!("expected whole seconds, not {text:?}")),
    }
}

/// Parses a TTL: whole seconds, at least one.
///
/// # Errors
/// Not a time, not a whole number of seconds, or 0.
pub fn parse_ttl(text: &str) -> Result<u64, String> {
    match parse_seconds(text)? {
        0 => Err("a TTL is at least one second; without --ttl, the namespace's default TTL applies".to_owned()),
        seconds => Ok(seconds),
    }
}

/// Parses a time to wait, longer than 0. A time longer than a day becomes a day.
///
/// # Errors
/// Not a time, or 0.
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
    fn numbers_and_sizes_read_well() {
        for (n, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(n), text);
        }
        for (n, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        for (number, text) in [(0, "0s"), (90, "1m 30s"), (90 * 86_400, "90d"), (86_400 + 3_601, "1d 1h 1s")] {
            assert_eq!(seconds(number), text);
        }
        assert_eq!(percent(0.1234), "12.3%");
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
