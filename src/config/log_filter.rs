//! Checks the filter of the process's own log more strictly than the library. The library takes any unknown word for
//! the name of a module and then logs nothing.

use tracing_subscriber::filter::Targets;

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Parses levels and filters such as `warn,sidecache=debug`. If no part is a plain level, `error` is added, so that
/// only `off` silences the log.
///
/// # Errors
/// A part that is neither a level nor `module=level`.
pub(super) fn parse(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let is_level = |part: &str| LEVELS.iter().any(|level| part.eq_ignore_ascii_case(level));
    let wrong = |part: &str| {
        let (last, others) = LEVELS.split_last().expect("there are levels");
        format!("expected {} or {last}, or filters such as \"warn,sidecache=debug\", not {part:?}", others.join(", "))
    };
    for part in &parts {
        let is_filter = part.rsplit_once('=').is_some_and(|(module, level)| !module.is_empty() && is_level(level));
        if !is_level(part) && !is_filter || part.parse::<Targets>().is_err() {
            return Err(wrong(part));
        }
    }
    let rest = if parts.iter().any(|part| is_level(part)) { None } else { Some("error") };
    Ok(rest.into_iter().chain(parts).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_taken() {
        for (text, filter) in [
            ("info", "info"),
            ("WARN", "WARN"),
            ("off", "off"),
            ("info,sqlx=warn,fred=error", "info,sqlx=warn,fred=error"),
            ("warn, sidecache::store=debug", "warn,sidecache::store=debug"),
            ("", "error"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(filter));
        }
    }

    #[test]
    fn regression_a_filter_that_names_modules_alone_still_logs_errors() {
        // A mistyped module name silenced the log.
        assert_eq!(parse("sidecahe=debug").as_deref(), Ok("error,sidecahe=debug"));
    }

    #[test]
    fn regression_a_word_that_is_no_level_is_refused_with_those_that_are() {
        // `warning` was taken for a module name, and nothing was logged.
        for text in
            ["warning", "information", "sidecache", "info,verbose", "sidecache=loud", "=debug", "sidecache=", "2"]
        {
            let reason = parse(text).expect_err(text);
            assert!(reason.contains("error, warn, info, debug, trace or off"), "{reason}");
        }
    }
}
