//! Checks the source text: the room (folder) that each room may use, which the compiler does not check within one
//! crate; the places that may name each library; and habits that a program can check.

#![expect(clippy::unwrap_used, reason = "a file that cannot be read must fail the test")]

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms that each room may use. A room uses only the rooms below it.
const ROOMS: [(&str, &[&str]); 25] = [
    ("model", &[]),
    ("workers", &[]),
    ("clock", &["model"]),
    ("config", &["model"]),
    ("trace", &["model"]),
    ("metrics", &["model", "workers"]),
    ("l1", &["clock", "model"]),
    ("store", &["clock", "config", "metrics", "model", "workers"]),
    ("coherence", &["clock", "l1", "metrics", "model", "store"]),
    ("database", &["config"]),
    ("journal", &["clock", "config", "database", "model", "workers"]),
    ("audit", &["clock", "config", "database", "journal", "metrics", "model"]),
    ("namespaces", &["audit", "clock", "config", "database", "model"]),
    ("jobs", &["audit", "clock", "database", "metrics", "model", "store", "trace"]),
    ("access_log", &["config", "database", "journal", "metrics", "model", "trace", "workers"]),
    ("trends", &["clock", "metrics", "model", "namespaces", "stats", "store"]),
    ("fleet", &["clock", "coherence", "l1", "metrics", "model", "namespaces", "store", "trends"]),
    ("stats", &["config", "metrics", "model", "namespaces", "store", "workers"]),
    (
        "cache",
        &[
            "access_log",
            "audit",
            "clock",
            "coherence",
            "config",
            "database",
            "jobs",
            "l1",
            "metrics",
            "model",
            "namespaces",
            "stats",
            "store",
            "trace",
        ],
    ),
    (
        "http",
        &[
            "access_log",
            "audit",
            "cache",
            "clock",
            "config",
            "database",
            "fleet",
            "jobs",
            "l1",
            "metrics",
            "model",
            "namespaces",
            "store",
            "telemetry",
            "trace",
            "trends",
            "workers",
        ],
    ),
    ("dashboard", &["audit", "cache", "clock", "fleet", "http", "jobs", "model", "namespaces", "store", "trends"]),
    ("telemetry", &["config", "trace"]),
    ("cli", &["config", "database", "store"]),
    (
        "app",
        &[
            "access_log",
            "audit",
            "cache",
            "clock",
            "coherence",
            "config",
            "dashboard",
            "database",
            "fleet",
            "http",
            "jobs",
            "l1",
            "metrics",
            "namespaces",
            "stats",
            "store",
            "telemetry",
            "trends",
            "workers",
        ],
    ),
    ("lib", &[]),
];

/// The only places that may name each library.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("clap", &["cli/"]),
    ("clap_complete", &["cli/"]),
    ("comfy_table", &["cli/screen.rs"]),
    ("indicatif", &["cli/screen.rs"]),
    ("ureq", &["cli/"]),
    ("rustls", &["config/redis.rs", "config/tls.rs"]),
    ("rustls_native_certs", &["cli/trust.rs", "config/tls.rs"]),
    ("fred", &["store/redis/", "config/redis.rs"]),
    (
        "sqlx",
        &[
            "database/",
            "namespaces/postgres.rs",
            "namespaces/sql.rs",
            "namespaces/sqlite.rs",
            "journal/postgres.rs",
            "journal/sqlite.rs",
            "audit/postgres.rs",
            "audit/sql.rs",
            "audit/sqlite.rs",
            "access_log/postgres.rs",
            "access_log/sqlite.rs",
            "jobs/postgres.rs",
            "jobs/sql.rs",
            "jobs/sqlite.rs",
            "config/database.rs",
        ],
    ),
    ("axum", &["http/", "dashboard/"]),
    ("hyper", &["http/"]),
    ("maud", &["dashboard/"]),
    ("tower_http", &["http/"]),
    ("utoipa", &["http/"]),
    ("utoipa_swagger_ui", &["http/docs.rs"]),
    ("metrics_exporter_prometheus", &["metrics/"]),
    ("metrics_process", &["metrics/"]),
    ("opentelemetry", &["trace/export.rs", "trace/counted.rs"]),
];

const MAX_LINES: usize = 500;

/// The Rust files under `folder`: the path relative to the folder, and the text.
fn files(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut pending: Vec<PathBuf> = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(!found.is_empty(), "{folder} has Rust files");
    found
}

/// The room of a file: its folder under `src`, or its own name.
fn room(path: &str) -> &str {
    path.split(['/', '.']).next().unwrap()
}

/// The numbered lines of a file without their comments. A `//` in a string counts as a comment, which is rare enough
/// not to matter.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines().map(|line| line.split("//").next().unwrap()))
}

/// The rooms that a line of code names as `crate::room`.
fn named(line: &str) -> Vec<&str> {
    line.match_indices("crate::")
        .map(|(at, prefix)| {
            let rest = &line[at + prefix.len()..];
            &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())]
        })
        .collect()
}

#[test]
fn rooms_use_only_the_rooms_below_them() {
    let mut wrong = Vec::new();
    for (path, text) in files("src") {
        if path == "main.rs" {
            continue;
        }
        let room = room(&path);
        let allowed = ROOMS.iter().find(|(name, _)| *name == room);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{path}: the room `{room}` is not in the table"));
        for (number, line) in code(&text) {
            assert!(!line.contains("crate::{"), "{path}:{number}: write one `use` per room for this test");
            let beyond = named(line).into_iter().filter(|name| *name != room && !allowed.contains(name));
            wrong.extend(beyond.map(|name| format!("{path}:{number}: `{room}` may not use `{name}`")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn libraries_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for (path, text) in files("src") {
        for (library, places) in LIBRARIES {
            if places.iter().any(|place| path.starts_with(place)) {
                continue;
            }
            let path_of_library = format!("{library}::");
            let names = code(&text).filter(|(_, line)| {
                line.match_indices(&path_of_library)
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
            });
            wrong.extend(names.map(|(number, _)| format!("{path}:{number}: names `{library}`")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_starts_with_a_description() {
    for folder in ["src", "tests", "examples", "bench", "benches", "screenshots", "fuzz/src", "fuzz/targets"] {
        for (path, text) in files(folder) {
            assert!(text.starts_with("//! "), "{folder}/{path} does not open with `//!`");
        }
    }
}

#[test]
fn no_file_of_src_is_too_long() {
    for (path, text) in files("src") {
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "src/{path} has {lines} lines: split it");
    }
}

#[test]
fn no_test_is_ignored() {
    let attribute = ["#[ign", "ore"].concat();
    for folder in ["src", "tests", "examples", "bench"] {
        for (path, text) in files(folder) {
            assert!(!text.contains(&attribute), "{folder}/{path} ignores a test");
        }
    }
}
