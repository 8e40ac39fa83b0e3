//! The request headers that the fast path knows, and what each means to it.
//!
//! Every header that matters to a handler must be in this list. Otherwise the fast path would answer the request as
//! if the header were absent. Tests compare the list with the headers that the handlers read and with the OpenAPI
//! document.

/// What a header means to the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Other,
    Host,
    RequestId,
    TraceParent,
    ContentLength,
    /// Determines the length of the request in a way that the fast path does not support.
    Framing,
    Connection,
    /// Says whether a page of another site made the browser send the request.
    Site,
    /// Only browsers send it.
    Browser,
    /// May ask for the bytes of the value alone, which only the router supports.
    Accept,
    /// May ask for a lease, which only the router gives.
    Prefer,
    /// Asks for something that only the router supports.
    Meaning,
}

impl Field {
    /// The field of this name. Selects by length first, so that a name is compared with few others.
    pub fn of(name: &str) -> Self {
        let known: &[(&str, Self)] = match name.len() {
            4 => &[("host", Self::Host)],
            6 => &[
                ("accept", Self::Accept),
                ("expect", Self::Meaning),
                ("origin", Self::Meaning),
                ("prefer", Self::Prefer),
            ],
            7 => &[("upgrade", Self::Framing)],
            8 => &[("if-match", Self::Meaning)],
            10 => &[("connection", Self::Connection)],
            11 => &[("traceparent", Self::TraceParent), ("cache-lease", Self::Meaning)],
            12 => &[("x-request-id", Self::RequestId)],
            13 => &[("cache-control", Self::Meaning), ("if-none-match", Self::Meaning)],
            14 => &[
                ("content-length", Self::ContentLength),
                ("cache-position", Self::Meaning),
                ("sec-fetch-site", Self::Site),
                ("sec-fetch-mode", Self::Browser),
                ("sec-fetch-dest", Self::Browser),
                ("sec-fetch-user", Self::Browser),
            ],
            17 => &[("transfer-encoding", Self::Framing)],
            19 => &[("if-unmodified-since", Self::Meaning)],
            24 => &[("sec-fetch-storage-access", Self::Browser)],
            _ => &[],
        };
        known.iter().find(|known| known.0.eq_ignore_ascii_case(name)).map_or(Self::Other, |known| known.1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::http::openapi::openapi;

    #[test]
    fn header_names_are_case_insensitive() {
        for (name, expected) in [
            ("Host", Field::Host),
            ("IF-MATCH", Field::Meaning),
            ("Sec-Fetch-Mode", Field::Browser),
            ("Transfer-Encoding", Field::Framing),
            ("accept", Field::Accept),
            ("accept-language", Field::Other),
            ("", Field::Other),
        ] {
            assert_eq!(Field::of(name), expected, "{name}");
        }
    }

    /// Headers that handlers read, but that do not matter to a read or a write of one entry.
    const FOR_OTHER_CALLS: [&str; 2] = [
        // Recorded with changes of policies and with flushes.
        "x-forwarded-for",
        // For the forms of the dashboard.
        "cookie",
    ];

    /// The source code of the files in a folder, without tests. Leaves out the fast path, which has no header map,
    /// and `openapi`, which only names headers.
    fn text_of(folder: &Path) -> String {
        let mut text = String::new();
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() && !path.ends_with("fast_path") && !path.ends_with("openapi") {
                text += &text_of(&path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let file = fs::read_to_string(&path).unwrap();
                text += file.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            }
        }
        text
    }

    /// The constants that follow `marker` in `text`.
    fn constants<'t>(text: &'t str, marker: &str) -> BTreeSet<&'t str> {
        let is_constant = |c: char| c.is_ascii_uppercase() || c == '_';
        let behind =
            text.split(marker).skip(1).map(|rest| &rest[..rest.find(|c| !is_constant(c)).unwrap_or(rest.len())]);
        behind.filter(|name| !name.is_empty()).collect()
    }

    #[test]
    fn every_header_that_a_handler_reads_is_known() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let text = text_of(&source.join("http")) + &text_of(&source.join("dashboard"));
        let read: BTreeSet<&str> = ["headers.get(", "headers.get_all(", "headers.contains_key(", "headers().get("]
            .into_iter()
            .flat_map(|marker| constants(&text, marker))
            .collect();
        let mut names = BTreeSet::new();
        for constant in read {
            // The text of our own constants contains the header's name. The constants of the library are named after
            // the header.
            let own = text.split_once(&format!("const {constant}: HeaderName = HeaderName::from_static(\""));
            let own = own.and_then(|(_, rest)| rest.split('"').next()).map(str::to_owned);
            names.insert(own.unwrap_or_else(|| constant.to_lowercase().replace('_', "-")));
        }
        for name in ["if-none-match", "cache-control", "prefer", "host", "origin", "traceparent", "if-match"] {
            assert!(names.contains(name), "this test does not find where `{name}` is read: {names:?}");
        }
        let unknown: Vec<_> = names
            .iter()
            .filter(|name| Field::of(name) == Field::Other && !FOR_OTHER_CALLS.contains(&name.as_str()))
            .collect();
        assert!(unknown.is_empty(), "handlers read {unknown:?}, but the fast path does not know these headers");
    }

    #[test]
    fn every_header_that_is_documented_for_an_entry_is_known() {
        let document = openapi();
        let path = &document["paths"]["/api/v1/cache/{ns}/{key}"];
        let mut names = Vec::new();
        for parameter in ["get", "put"].iter().flat_map(|method| path[method]["parameters"].as_array().unwrap()) {
            let reference = parameter["$ref"].as_str().map(|reference| reference.trim_start_matches('#'));
            let parameter = reference.map_or(Some(parameter), |reference| document.pointer(reference)).unwrap();
            if parameter["in"] == "header" {
                names.push(parameter["name"].as_str().unwrap());
            }
        }
        assert!(names.contains(&"Cache-Control") && names.contains(&"Traceparent"), "{names:?}");
        for name in names {
            assert_ne!(Field::of(name), Field::Other, "{name}");
        }
    }
}
