//! Checks the source text: the room (folder) that each room may use, which the compiler does not check within one
//! crate; the places that may name each library; and habits that a program can check.

#![expect(clippy::unwrap_used, reason = "a file that cannot be read must fail the test")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms that each room may use. A room uses only the rooms below it.
const ROOMS: [(&str, &[&str]); 28] = [
    ("model", &[]),
    ("number", &["model"]),
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
    ("net", &["clock", "config", "metrics", "workers"]),
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
            "net",
            "store",
            "telemetry",
            "trace",
            "trends",
            "workers",
        ],
    ),
    ("resp", &["cache", "clock", "config", "jobs", "metrics", "model", "net", "store", "trace"]),
    (
        "dashboard",
        &["audit", "cache", "clock", "fleet", "http", "jobs", "model", "namespaces", "number", "store", "trends"],
    ),
    ("telemetry", &["config", "trace"]),
    ("cli", &["config", "database", "number", "store"]),
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
            "net",
            "resp",
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
    ("indicatif", &["cli/screen.rs", "number.rs"]),
    ("ureq", &["cli/"]),
    ("rustls", &["config/redis.rs", "config/tls.rs"]),
    ("rustls_native_certs", &["cli/tls.rs", "config/tls.rs"]),
    ("fred", &["store/redis/", "config/redis.rs"]),
    ("sqlx", &["database/", "config/database.rs"]),
    ("jiff", &["model/date.rs"]),
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

/// A file that no `mod` names is not compiled, so it says nothing and nobody notices.
#[test]
fn every_file_is_part_of_the_program() {
    for folder in ["src", "tests/suite"] {
        let files = files(folder);
        let mut undeclared = Vec::new();
        for (path, _) in files.iter().filter(|(path, _)| !["lib.rs", "main.rs"].contains(&&**path)) {
            let module = path.strip_suffix("/mod.rs").or_else(|| path.strip_suffix(".rs")).unwrap();
            let (parent, name) = module.rsplit_once('/').unwrap_or(("", module));
            let parents = match parent {
                "" => ["lib.rs".to_owned(), "main.rs".to_owned()],
                parent => [format!("{parent}/mod.rs"), format!("{parent}.rs")],
            };
            let declares = |line: &str| line.trim().ends_with(&format!("mod {name};"));
            let mut texts = files.iter().filter(|(path, _)| parents.contains(path));
            if !texts.any(|(_, text)| text.lines().any(declares)) {
                undeclared.push(path);
            }
        }
        assert!(undeclared.is_empty(), "no `mod` names these files of {folder}: {undeclared:?}");
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

/// The imports between the files of `src`: which file a path in the code leads to.
struct Imports<'t> {
    /// Each file by its module's path.
    modules: BTreeMap<Vec<&'t str>, &'t str>,
    /// The names that each file re-exports with `pub use`, and where they come from.
    reexports: BTreeMap<&'t str, BTreeMap<String, String>>,
}

impl<'t> Imports<'t> {
    /// The files that each file imports from.
    fn between(files: &'t [(String, String)]) -> BTreeMap<&'t str, BTreeSet<&'t str>> {
        let files = || files.iter().filter(|(path, _)| path != "main.rs");
        let modules = files().map(|(path, _)| (module(path), path.as_str())).collect();
        let mut imports = Self { modules, reexports: BTreeMap::new() };
        let mut used: Vec<(&str, Vec<String>)> = Vec::new();
        for (path, text) in files() {
            let (uses, reexports) = imports.paths(path, &without_tests_and_comments(text));
            imports.reexports.insert(path, reexports);
            used.push((path, uses));
        }
        let leads_to = |(from, paths): (&'t str, Vec<String>)| {
            let to = paths.iter().filter_map(|path| imports.file(from, path)).filter(|to| *to != from);
            (from, to.collect())
        };
        used.into_iter().map(leads_to).collect()
    }

    /// All paths in the code of a file, and its re-exports.
    fn paths(&self, file: &str, code: &str) -> (Vec<String>, BTreeMap<String, String>) {
        let (mut uses, mut reexports, mut rest) = (Vec::new(), BTreeMap::new(), String::new());
        for statement in code.split_inclusive(';') {
            let start = statement.rfind("\nuse ").map(|at| (at, "\nuse "));
            let start = start.or_else(|| statement.rfind("\npub use ").map(|at| (at, "\npub use ")));
            let start = start.or_else(|| statement.rfind("\npub(crate) use ").map(|at| (at, "\npub(crate) use ")));
            let Some((at, words)) = start else {
                rest.push_str(statement);
                continue;
            };
            rest.push_str(&statement[..at]);
            let tree: String = statement[at + words.len()..].split_whitespace().collect::<Vec<_>>().join(" ");
            for path in expanded(tree.trim_end_matches(';')) {
                if words == "\nuse " {
                    uses.push(path);
                } else {
                    reexports.insert(path.rsplit("::").next().unwrap().to_owned(), path);
                }
            }
        }
        let imported = uses.clone();
        let own = module(file);
        let is_child = |word: &str| self.modules.contains_key(&[&own[..], &[word]].concat());
        let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        for path in rest.split(|c| !is_name(c)).filter(|path| path.contains("::")) {
            let (first, below) = path.split_once("::").unwrap();
            if ["crate", "super", "self"].contains(&first) || is_child(first) {
                uses.push(path.to_owned());
            } else if let Some(imported) = imported.iter().find(|path| path.rsplit("::").next() == Some(first)) {
                // A module was imported as a whole: `use super::page;`, and then `page::bare`.
                uses.push(format!("{imported}::{below}"));
            }
        }
        (uses, reexports)
    }

    /// The file that defines what `path` names in `from`; `None` for other crates and for modules as a whole.
    fn file(&self, from: &str, path: &str) -> Option<&'t str> {
        let mut parts: Vec<&str> = path.split("::").collect();
        let mut at = module(from);
        match parts[0] {
            "crate" => at = Vec::new(),
            "super" | "self" => {}
            child if self.modules.contains_key(&[&at[..], &[child]].concat()) => {}
            _ => return None,
        }
        while ["crate", "super", "self"].contains(parts.first()?) {
            if parts.remove(0) == "super" {
                at.pop();
            }
        }
        while self.modules.contains_key(&[&at[..], &parts[..1]].concat()) {
            at.push(parts.remove(0));
            if parts.is_empty() {
                return None;
            }
        }
        let file = self.modules.get(&at)?;
        let reexported = self.reexports.get(file).and_then(|names| names.get(parts[0]));
        reexported.and_then(|path| self.file(file, path)).or(Some(file))
    }
}

/// The path of a file's module: `["http", "entry"]` for `http/entry.rs`.
fn module(path: &str) -> Vec<&str> {
    let path = path.strip_suffix(".rs").unwrap();
    let mut parts: Vec<&str> = path.split('/').collect();
    if ["mod", "lib"].contains(parts.last().unwrap()) {
        parts.pop();
    }
    parts
}

/// The paths of a `use`: `a::{b, c as d}` are `a::b` and `a::c`.
fn expanded(tree: &str) -> Vec<String> {
    let Some((prefix, inner)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap().trim().to_owned()];
    };
    let inner = &inner[..inner.rfind('}').unwrap()];
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ',' && depth == 0 {
            parts.push(&inner[from..at]);
            from = at + 1;
        }
    }
    parts.push(&inner[from..]);
    let parts = parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).flat_map(expanded);
    parts
        .map(|part| if part == "self" { prefix.trim_end_matches(':').into() } else { format!("{prefix}{part}") })
        .collect()
}

fn without_tests_and_comments(text: &str) -> String {
    let end = ["#[cfg(test)]", "#[cfg(all(test"].iter().filter_map(|mark| text.find(mark)).min();
    let lines = text[..end.unwrap_or(text.len())].lines();
    lines.fold("\n".to_owned(), |code, line| code + line.split("//").next().unwrap() + "\n")
}

/// The files of one circle of imports, in order; empty if there is none.
fn circle<'t>(imports: &BTreeMap<&'t str, BTreeSet<&'t str>>) -> Vec<&'t str> {
    for start in imports.keys() {
        // Breadth first, so that the shortest way back is found.
        let (mut ways, mut seen) = (VecDeque::from([vec![*start]]), BTreeSet::new());
        while let Some(way) = ways.pop_front() {
            for next in imports.get(way[way.len() - 1]).into_iter().flatten() {
                if next == start {
                    return way;
                }
                if seen.insert(*next) {
                    ways.push_back([&way[..], &[*next]].concat());
                }
            }
        }
    }
    Vec::new()
}

#[test]
fn no_files_import_each_other() {
    let files = files("src");
    assert!(files.len() > 100);
    assert_eq!(circle(&Imports::between(&files)), [""; 0], "cut a file where the dependency is wrong");
}

#[test]
fn a_circle_of_files_is_found() {
    let found = |files: &[(&str, &str)]| {
        let files: Vec<_> = files.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect();
        circle(&Imports::between(&files)).join(" ")
    };
    let straight = [("a/mod.rs", "mod b;\npub use b::B;\n"), ("a/b.rs", "struct B;"), ("a/c.rs", "use super::B;\n")];
    assert_eq!(found(&straight), "");
    assert_eq!(
        found(&[("a/mod.rs", "struct A;\nfn f() { b::f() }"), ("a/b.rs", "use super::A;\n")]),
        "a/b.rs a/mod.rs"
    );
    let renamed = [("a.rs", "use crate::b::{\n  c::X,\n  D as E,\n};\n"), ("b.rs", "fn f(x: crate::a::Y) {}")];
    assert_eq!(found(&renamed), "a.rs b.rs");
    let through = [("a/mod.rs", "pub use b::B;\n"), ("a/b.rs", "use super::c::C;\n"), ("a/c.rs", "use super::B;\n")];
    assert_eq!(found(&through), "a/b.rs a/c.rs");
    assert_eq!(
        found(&[("a.rs", "// crate::b::X\n#[cfg(test)]\nuse crate::b::X;\n"), ("b.rs", "use crate::a::Y;\n")]),
        ""
    );
    let whole =
        [("r/a.rs", "use super::{b, c};\nfn f() { b::f() }"), ("r/b.rs", "use super::a::A;\n"), ("r/c.rs", "")];
    assert_eq!(found(&whole), "r/a.rs r/b.rs", "a module that is imported as a whole");
}
