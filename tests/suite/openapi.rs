//! The interface matches its document, and the document is valid OpenAPI 3.1.
//!
//! schemathesis (<https://schemathesis.readthedocs.io>) generates valid and invalid requests from the document, and
//! checks every answer against the document. The configuration in `tests/openapi/` states what it cannot know by
//! itself, with reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use crate::support::both_stores::on_own_services;
use crate::support::process::{self, Process, Signal};
use crate::support::scratch;
use crate::support::service::{Service, Settings};

on_own_services! {
    schemathesis_finds_no_answer_that_is_not_documented,
}

/// The number of requests of each kind for each call, in addition to those at the documented limits.
const EXAMPLES: usize = 20;

/// The time limit for a program. It usually takes half a minute.
const PATIENCE: Duration = Duration::from_secs(600);

async fn schemathesis_finds_no_answer_that_is_not_documented(settings: Settings) {
    let service = Service::start(settings);
    let url = format!("http://{}/openapi.json", service.address());
    let document = document(&service).await;
    let calls: usize = paths(&document).values().map(BTreeSet::len).sum();
    let mut command = tool("st");
    command
        .env("SCHEMATHESIS_HOOKS", folder().join("hooks.py"))
        .arg("--config-file")
        .arg(folder().join("schemathesis.toml"))
        .args(["run", &url, "--checks", "all", "--max-examples", &EXAMPLES.to_string()])
        // The same requests each time.
        .args(["--generation-deterministic", "--continue-on-failure", "--no-color"]);
    let said = output_of(command);
    // All calls except the one that returned the document itself.
    let tried = calls - 1;
    assert!(said.contains(&format!("Tested: {tried}\n")), "not all of the {calls} calls were tested:\n{said}");
    eprintln!("{said}");
    service.client().fetch("/livez").await.expect(200);
}

#[tokio::test]
async fn the_document_is_valid_and_so_are_its_examples() {
    let service = Service::start(Settings::embedded());
    let folder = scratch::folder("openapi");
    let path = scratch::file(folder.path(), "openapi.json", &document(&service).await.to_string());
    let mut command = tool("python");
    command.arg(self::folder().join("check.py")).arg(path);
    let said = output_of(command);
    let examples = said.split(' ').next().and_then(|number| number.parse().ok());
    assert!(examples.is_some_and(|examples: usize| examples > 100), "{said}");
}

#[tokio::test]
async fn the_document_that_is_served_is_the_committed_one() {
    let service = Service::start(Settings::embedded());
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let committed = std::fs::read_to_string(committed).expect("the document is committed");
    let committed: Value = serde_json::from_str(&committed).expect("it is JSON");
    assert!(document(&service).await == committed, "`make openapi` renews docs/openapi.json");
}

#[tokio::test]
async fn the_allow_header_of_each_path_lists_the_documented_methods() {
    let service = Service::start(Settings::embedded());
    let cache = service.client();
    for (path, documented) in paths(&document(&service).await) {
        let place = path.replace("{ns}", "users").replace("{key}", "k").replace("{file}", "page.js");
        let answer = cache.send(Method::OPTIONS, &place, &[], None).await;
        let taken = answer.header("allow").unwrap_or_default().split(',').map(|name| name.trim().to_owned());
        assert_eq!(taken.collect::<BTreeSet<_>>(), documented, "{path}");
        answer.expect_error(405, "method_not_allowed");
    }
}

#[tokio::test]
async fn the_docs_page_loads_files_only_from_the_service() {
    let service = Service::start(Settings::embedded());
    let cache = service.client();
    let page = cache.fetch("/docs").await.expect(200);
    let policy = page.header("content-security-policy").unwrap_or_default();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
    let text = page.text().to_owned();
    let mut files = 0;
    for attribute in ["src=\"", "href=\""] {
        for place in text.split(attribute).skip(1).filter_map(|rest| rest.split('"').next()) {
            if place != "data:," {
                assert!(!place.contains(':') && !place.starts_with('/'), "{place} must be a relative path");
                let file = cache.fetch(&format!("/{place}")).await.expect(200);
                assert_eq!(file.header("x-content-type-options").is_some(), place != "openapi.json", "{place}");
                files += 1;
            }
        }
    }
    assert_eq!(files, 5, "two scripts, two styles and the document");
    // The page contains nothing that its policy forbids.
    assert!(!text.contains("<style") && !text.contains("<script>") && !text.contains("style="), "{text}");
    cache.fetch("/docs/other.js").await.expect_error(404, "no_such_route");
    cache.fetch("/docs/%FF").await.expect_error(404, "no_such_route");
}

async fn document(service: &Service) -> Value {
    let answer = service.client().fetch("/openapi.json").await.expect(200);
    serde_json::from_str(answer.text()).expect("the document is JSON")
}

/// The documented methods, by path.
fn paths(document: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let paths = document["paths"].as_object().expect("a document has paths");
    let methods =
        |path: &Value| path.as_object().expect("a path has methods").keys().map(|name| name.to_uppercase()).collect();
    paths.iter().map(|(path, item)| (path.clone(), methods(item))).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi")
}

/// A program of the Python environment that `tests/install-tools.sh` creates.
fn tool(name: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/openapi/bin").join(name);
    assert!(path.exists(), "{} is missing: run tests/install-tools.sh", path.display());
    process::dying_with_us(&path, Signal::Kill)
}

/// The output of a program, which must succeed.
fn output_of(mut command: Command) -> String {
    let folder = scratch::folder("openapi-tool");
    let path = folder.path().join("output");
    let output = File::create(&path).expect("the scratch folder takes files");
    let errors = output.try_clone().expect("a file can be shared");
    command.current_dir(folder.path()).stdin(Stdio::null()).stdout(output).stderr(errors);
    let ended = Process::spawn(command, Signal::Kill).wait(PATIENCE);
    let said = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}; output:\n{said}");
    said
}
