//! The text of statements. PostgreSQL and SQLite get the same text, except for a few words in braces, which are
//! replaced here. All dates are in Unix milliseconds on this side of a statement. SQLite also stores them like that;
//! PostgreSQL has a type for dates.

use std::borrow::Cow;

/// Which language a statement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Postgres,
    Sqlite,
}

/// The text of a statement, with its words in braces replaced:
/// - `{date $1}`: a parameter as a stored date;
/// - `{millis at}`: a stored date as a number;
/// - `{now}`, `{ago 1000}`: the current date, and the date that many milliseconds earlier;
/// - `{json $1}`: a text parameter as a stored document.
pub(super) fn text(template: &'static str, language: Language) -> Cow<'static, str> {
    if !template.contains('{') {
        return Cow::Borrowed(template);
    }
    let mut text = String::with_capacity(template.len() + 200);
    for (i, piece) in template.split(['{', '}']).enumerate() {
        match i % 2 {
            0 => text.push_str(piece),
            _ => text.push_str(&word(piece, language)),
        }
    }
    Cow::Owned(text)
}

fn word(word: &str, language: Language) -> String {
    let (name, argument) = word.split_once(' ').unwrap_or((word, ""));
    match (name, language) {
        ("date", Language::Postgres) => format!("to_timestamp({argument} / 1000.0)"),
        ("millis", Language::Postgres) => format!("(extract(epoch FROM {argument}) * 1000)::bigint"),
        ("json", Language::Postgres) => format!("{argument}::text::jsonb"),
        ("date" | "millis" | "json", Language::Sqlite) => argument.to_owned(),
        ("now", Language::Postgres) => "now()".to_owned(),
        ("ago", Language::Postgres) => format!("now() - {argument} * interval '1 millisecond'"),
        ("now", Language::Sqlite) => "CAST(unixepoch('subsec') * 1000 AS INTEGER)".to_owned(),
        ("ago", Language::Sqlite) => format!("CAST(unixepoch('subsec') * 1000 AS INTEGER) - {argument}"),
        _ => unreachable!("a statement has the unknown word {word}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_replaced_for_each_database() {
        let template = "SELECT {millis at}, $1 FROM t WHERE at < {ago 1000} OR at = {date $2}";
        let postgres = "SELECT (extract(epoch FROM at) * 1000)::bigint, $1 FROM t \
                        WHERE at < now() - 1000 * interval '1 millisecond' OR at = to_timestamp($2 / 1000.0)";
        let sqlite = "SELECT at, $1 FROM t WHERE at < CAST(unixepoch('subsec') * 1000 AS INTEGER) - 1000 OR at = $2";
        assert_eq!(text(template, Language::Postgres), postgres);
        assert_eq!(text(template, Language::Sqlite), sqlite);
        assert!(matches!(text("SELECT 1", Language::Sqlite), Cow::Borrowed("SELECT 1")));
    }
}
