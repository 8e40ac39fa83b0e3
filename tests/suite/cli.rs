//! The command line: the built program as a client of real services, and its commands that need no service.
//!
//! Standard output is a pipe here, not a terminal, so there are no progress bars, colours or questions.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::both_stores::on_both_stores;
use crate::support::client::{cache_path, encoded, namespace};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::nginx::Nginx;
use crate::support::ports;
use crate::support::postgres::{self, Postgres};
use crate::support::process::{self, Signal};
use crate::support::redis::{self, Redis};
use crate::support::scratch;
use crate::support::service::{Service, Settings, run};

on_both_stores! {
    a_value_comes_back_as_the_bytes_that_went_in,
    a_value_may_come_from_standard_input,
    keys_may_be_any_text,
    a_value_that_is_not_json_is_refused_with_advice,
    a_ttl_and_tags_are_stored,
    a_newer_source_version_is_not_overwritten,
    a_known_absence_is_stored_and_shown,
    a_touch_changes_the_ttl_and_the_tags,
    a_miss_is_exit_code_1,
    a_lease_is_printed_filled_and_released,
    regression_the_lease_of_an_entry_that_is_due_is_printed,
    del_names_the_keys_that_did_not_exist,
    mget_keeps_the_order_and_the_bytes,
    flush_needs_yes_without_a_terminal,
    a_dry_run_counts_what_a_flush_deletes,
    on_a_terminal_a_flush_counts_and_asks,
    regression_on_a_terminal_a_flush_without_matches_says_so_without_asking,
    keys_are_listed_line_by_line,
    a_closed_stdout_ends_a_listing_quietly,
    regression_an_answer_that_cannot_be_written_is_exit_code_7,
    stats_are_those_of_the_service,
    watched_stats_are_printed_repeatedly,
    policies_are_created_changed_and_deleted,
    namespaces_are_listed_with_their_numbers,
    the_cluster_is_shown,
    a_refused_request_is_exit_code_4,
    request_ids_say_that_the_cli_sent_the_request,
    regression_the_key_stats_is_reported_as_reserved,
    regression_the_error_for_a_full_namespace_says_where_to_see_the_quota,
    options_may_come_before_the_command,
    the_names_of_the_http_interface_are_accepted,
}

/// How a run ended.
struct Finished {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
}

impl Finished {
    #[track_caller]
    fn expect(self, code: i32) -> Finished {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.text(), self.err);
        if code == 0 {
            assert_eq!(self.err, "", "success is silent");
        } else if code != 2 {
            assert_eq!(self.err.lines().count(), 1, "an error is one line: {}", self.err);
        }
        self
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    #[track_caller]
    fn json(&self) -> Value {
        let text = self.text();
        assert_eq!(text.lines().count(), 1, "one document: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidecache"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["SIDECACHE_", "TRACE", "SSL_CERT_"].iter().any(|start| text.starts_with(start)) {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(command: Command, stdin: &[u8]) -> Finished {
    finish_into(command, stdin, Stdio::piped())
}

fn finish_into(mut command: Command, stdin: &[u8], stdout: Stdio) -> Finished {
    let mut child = command.stdout(stdout).spawn().expect("the program starts");
    let mut pipe = child.stdin.take().expect("stdin is piped");
    let bytes = stdin.to_vec();
    // The program may end without reading its input.
    let writer = thread::spawn(move || drop(pipe.write_all(&bytes)));
    let output = child.wait_with_output().expect("the program ends");
    writer.join().expect("the writer ends");
    let err = String::from_utf8(output.stderr).expect("messages are UTF-8");
    Finished { code: output.status.code(), out: output.stdout, err }
}

/// Runs a command against a service.
fn ask(service: &Service, arguments: &[&str]) -> Finished {
    ask_with(service, arguments, b"")
}

fn ask_with(service: &Service, arguments: &[&str], stdin: &[u8]) -> Finished {
    let mut command = program(arguments);
    command.env("SIDECACHE_URL", format!("http://{}", service.address()));
    finish(command, stdin)
}

/// Runs a command without `SIDECACHE_URL`.
fn run_program(arguments: &[&str]) -> Finished {
    finish(program(arguments), b"")
}

const VALUES: &[&str] = &[
    "1.0000000000000000000000001e+400",
    "\"\\u00e4 \\/ ä 🦀\"",
    "{ \"b\": 1,\t\"a\": [ 1, 2 ], \"b\": 2 }",
    "null",
    "-0.0",
    "\"\"",
    "[\n  1,\n  2\n]",
];

async fn a_value_comes_back_as_the_bytes_that_went_in(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    for value in VALUES {
        cache.set(&ns, "http", value).await;
        assert_eq!(ask(service, &["get", &ns, "http"]).expect(0).out, value.as_bytes());
        ask(service, &["set", &ns, "cli", value]).expect(0);
        assert_eq!(cache.get(&ns, "cli").await.expect(200).value(), *value);
        let json = ask(service, &["get", &ns, "cli", "--json"]).expect(0);
        assert!(json.text().contains(&format!("\"value\":{value},")), "{}", json.text());
    }
    cache.set(&ns, "text", r#""a\n\"b\" ü""#).await;
    assert_eq!(ask(service, &["get", &ns, "text", "--raw"]).expect(0).text(), "a\n\"b\" ü");
    cache.set(&ns, "number", "7").await;
    assert_eq!(ask(service, &["get", &ns, "number", "--raw", "--fresh"]).expect(0).text(), "7");
    for options in [&["--max-age", "1h", "--max-staleness-ms", "500"][..], &["--max-age", "2d", "--fresh"]] {
        let words = [&["get", ns.as_str(), "number"], options].concat();
        assert_eq!(ask(service, &words).expect(0).text(), "7", "{options:?}");
    }
    cache.set_for(&ns, "short", "8", 100).await;
    let unmet = ask(service, &["get", &ns, "short", "--min-fresh", "1h"]).expect(1);
    assert!(unmet.err.contains("min-fresh"), "{}", unmet.err);
}

async fn a_value_may_come_from_standard_input(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    assert_eq!(ask_with(service, &["set", &ns, "k"], b" {\"a\": 1}\n").expect(0).text(), "created\n");
    assert_eq!(cache.get(&ns, "k").await.value(), "{\"a\": 1}");
    assert_eq!(ask_with(service, &["set", &ns, "k", "-"], b"2").expect(0).text(), "replaced\n");
    assert_eq!(cache.get(&ns, "k").await.value(), "2");
    ask_with(service, &["set", &ns, "k", "--string"], "a \"text\"\nü".as_bytes()).expect(0);
    assert_eq!(cache.get(&ns, "k").await.value(), r#""a \"text\"\nü""#);
    let large = format!("\"{}\"", "x".repeat(2 << 20));
    ask_with(service, &["set", &ns, "large"], large.as_bytes()).expect(0);
    assert_eq!(ask(service, &["get", &ns, "large"]).expect(0).out, large.as_bytes());
    let ran = ask_with(service, &["set", &ns, "k"], b"\xff").expect(2);
    assert!(ran.err.contains("UTF-8"), "{}", ran.err);
    let ran = ask_with(service, &["set", &ns, "k"], b"").expect(2);
    assert!(ran.err.contains("standard input"), "{}", ran.err);
}

const KEYS: &[&str] = &["a/b", "100%", "%2F", "ü 🦀", "..", ".", "?x=1&y#z", "-dash", "a b", "+", "mget"];

async fn keys_may_be_any_text(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    for key in KEYS {
        ask(service, &["set", &ns, "--", key, "1"]).expect(0);
        assert_eq!(ask(service, &["get", &ns, "--", key]).expect(0).text(), "1", "{key}");
    }
    let mut expected = KEYS.to_vec();
    expected.sort_unstable();
    assert_eq!(cache.all_keys(&ns).await, expected);
    let listed = ask(service, &["keys", &ns]).expect(0).text();
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, expected);
    let words: Vec<&str> = ["mget", &ns, "--json", "--"].into_iter().chain(KEYS.iter().copied()).collect();
    assert_eq!(ask(service, &words).expect(0).json()["hits"], KEYS.len());
    let words: Vec<&str> = ["del", &ns, "--"].into_iter().chain(KEYS.iter().copied()).collect();
    assert_eq!(ask(service, &words).expect(0).text(), format!("deleted {} entries\n", KEYS.len()));
}

async fn a_value_that_is_not_json_is_refused_with_advice(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    let ran = ask(service, &["set", &ns, "k", "hello"]).expect(2);
    assert!(ran.err.contains("not valid JSON") && ran.err.contains("--string"), "{}", ran.err);
    cache.get(&ns, "k").await.expect(404);
    ask(service, &["set", &ns, "k", "hello", "--string"]).expect(0);
    assert_eq!(cache.get(&ns, "k").await.value(), "\"hello\"");
    ask(service, &["set", &ns, "k", "-5"]).expect(0);
    assert_eq!(cache.get(&ns, "k").await.value(), "-5");
    for ttl in ["0", "soon", "1.5s", "-1"] {
        let ran = ask(service, &["set", &ns, "k", "1", &format!("--ttl={ttl}")]).expect(2);
        assert!(ran.err.contains("--ttl"), "{}", ran.err);
    }
}

async fn a_known_absence_is_stored_and_shown(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    assert_eq!(ask(service, &["set", &ns, "k", "--absent", "--ttl", "1m"]).expect(0).text(), "created\n");
    cache.get(&ns, "k").await.expect_error(404, "known_absent");
    let ran = ask(service, &["get", &ns, "k"]).expect(1);
    assert!(ran.err.contains("known absent"), "{}", ran.err);
    let shown = ask(service, &["get", &ns, "k", "--json"]).expect(1).json();
    assert_eq!(shown, json!({"namespace": ns, "key": "k", "found": false, "known_absent": true}));
    cache.set(&ns, "here", "1").await.expect(201);
    let shown = ask(service, &["mget", &ns, "here", "k"]).expect(1).text();
    assert!(shown.contains("(known absent)"), "{shown}");
    ask(service, &["set", &ns, "k", "1", "--absent"]).expect(2);
}

async fn a_ttl_and_tags_are_stored(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    for (ttl, seconds) in [("90", 90), ("5m", 300), ("1h30m", 5_400)] {
        let ran = ask(service, &["set", &ns, "k", "1", "--ttl", ttl, "--tag", "red", "--tag", "größe", "--json"]);
        let stored = ran.expect(0).json();
        assert_eq!((&stored["success"], &stored["key"]), (&json!(true), &json!("k")));
        let left = cache.get(&ns, "k").await.metadata().ttl_remaining.expect("it expires");
        assert!((seconds - 60..=seconds).contains(&left), "{left} of {seconds}");
        let known = ask(service, &["get", &ns, "k", "--metadata", "--json"]).expect(0).json();
        assert_eq!(known["metadata"]["version"], stored["version"]);
        assert_eq!(known["metadata"]["tags"], json!(["größe", "red"]));
    }
    let shown = ask(service, &["get", &ns, "k", "--metadata"]).expect(0).text();
    assert!(shown.contains("ttl remaining") && shown.contains("größe, red"), "{shown}");
    assert_eq!(
        ask(service, &["flush", &ns, "--tag", "größe", "--yes", "--json"]).expect(0).json()["deleted_count"],
        1
    );
}

async fn a_newer_source_version_is_not_overwritten(service: &Service) {
    let ns = namespace("cli");
    ask(service, &["set", &ns, "k", "1", "--source-version", "9223372036854775807"]).expect(0);
    let metadata = ask(service, &["get", &ns, "k", "--metadata"]).expect(0).text();
    assert!(metadata.contains("9223372036854775807"), "{metadata}");
    for refused in [&["set", &ns, "k", "2", "--source-version", "7"][..], &["del", &ns, "k", "--source-version", "7"]]
    {
        let ran = ask(service, refused).expect(4);
        assert!(ran.err.contains("nothing was changed"), "{}", ran.err);
    }
    ask(service, &["del", &ns, "k", "--source-version", "9223372036854775807"]).expect(0);
    ask(service, &["set", &ns, "k", "2", "--source-version", "7"]).expect(4);
    ask(service, &["set", &ns, "k", "2", "--source-version", "9223372036854775808"]).expect(2);
}

async fn a_touch_changes_the_ttl_and_the_tags(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    cache.put(&ns, "k", r#"{"value":1,"ttl":600,"tags":["red"]}"#).await.expect(201);
    let touch = |arguments: &[&str]| ask(service, &[&["touch", &ns, "k"], arguments].concat());
    assert_eq!(touch(&["--ttl", "1h30m"]).expect(0).text(), "expires in 1h 30m\n");
    assert_eq!(touch(&["--persist", "--tag", "a", "--tag", "größe"]).expect(0).text(), "never expires\n");
    let known = ask(service, &["get", &ns, "k", "--metadata", "--json"]).expect(0).json();
    assert_eq!(known["metadata"]["tags"], json!(["a", "größe"]));
    let expected = json!({"success": true, "namespace": ns, "key": "k", "ttl": 90});
    assert_eq!(touch(&["--ttl", "90", "--no-tags", "--json"]).expect(0).json(), expected);
    let known = ask(service, &["get", &ns, "k", "--metadata", "--json"]).expect(0).json();
    assert_eq!(known["metadata"]["tags"], json!([]));
    for wrong in [&[][..], &["--ttl", "0"], &["--ttl", "1", "--persist"], &["--tag", "a", "--no-tags"]] {
        touch(wrong).expect(2);
    }
    let absent = ask(service, &["touch", &ns, "nothing", "--persist"]).expect(1);
    assert!(absent.err.contains("no entry"), "{}", absent.err);
}

async fn a_miss_is_exit_code_1(service: &Service) {
    let ns = namespace("cli");
    let ran = ask(service, &["get", &ns, "nothing"]).expect(1);
    assert_eq!(
        (ran.text(), ran.err.as_str()),
        (String::new(), &*format!("sidecache: no entry \"nothing\" in {ns}\n"))
    );
    let ran = ask(service, &["get", &ns, "nothing", "--json"]).expect(1);
    assert_eq!(ran.json(), json!({"namespace": ns, "key": "nothing", "found": false}));
    let error: Value = serde_json::from_str(&ran.err).expect("errors are JSON as well");
    assert_eq!((&error["code"], &error["exit_code"]), (&json!("key_not_found"), &json!(1)));
    ask(service, &["namespaces", "get", &ns]).expect(1);
}

async fn a_lease_is_printed_filled_and_released(service: &Service) {
    let ns = namespace("cli");
    let get = ["get", &ns, "k", "--lease", "10s"];
    let ran = ask(service, &get).expect(1);
    let token = ran.text().trim_end().to_owned();
    assert!(token.len() == 32 && ran.err.contains("no entry \"k\""), "{token:?} {}", ran.err);
    assert_eq!(ask(service, &[&get[..], &["--wait", "1s"]].concat()).expect(1).text(), "held\n");
    let mut held = ask(service, &[&get[..], &["--json"]].concat()).expect(1).json();
    assert!(held["lease"]["ttl"].take().as_u64().is_some_and(|ttl| ttl <= 10), "{held}");
    let lease = json!({"state": "held", "ttl": null});
    assert_eq!(held, json!({"namespace": ns, "key": "k", "found": false, "lease": lease}));
    // Another token stores and releases nothing.
    let other = "0123456789abcdef0123456789abcdef";
    ask(service, &["set", &ns, "k", "1", "--lease", other]).expect(4);
    ask(service, &["release", &ns, "k", other]).expect(4);
    assert_eq!(ask(service, &["set", &ns, "k", "1", "--lease", &token]).expect(0).text(), "created\n");
    assert_eq!(ask(service, &get).expect(0).text(), "1");
    ask(service, &["del", &ns, "k"]).expect(0);
    let won = ask(service, &[&get[..], &["--json"]].concat()).expect(1).json();
    let token = won["lease"]["token"].as_str().expect("a token").to_owned();
    assert_eq!(ask(service, &["release", &ns, "k", &token]).expect(0).text(), "released\n");
    let ran = ask(service, &["release", &ns, "k", &token, "--json"]).expect(4);
    assert!(ran.err.contains("lease_lost"), "{}", ran.err);
    for wrong in [&["--lease", "61s"][..], &["--lease", "0"], &["--wait", "1s"], &["--lease", "9s", "--metadata"]] {
        ask(service, &[&["get", &ns, "k"], wrong].concat()).expect(2);
    }
}

/// The bug: the command dropped the token that came with an entry, so nobody refreshed it until the lease ended.
async fn regression_the_lease_of_an_entry_that_is_due_is_printed(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    cache.put(&ns, "k", r#"{"value":1,"ttl":600,"stale_while_revalidate":60}"#).await.expect(201);
    assert_eq!(ask(service, &["del", &ns, "k", "--stale"]).expect(0).text(), "marked 1 entry as stale\n");
    let get = ["get", &ns, "k", "--lease", "60s"];
    let won = ask(service, &get);
    assert_eq!((won.code, won.text().as_str()), (Some(0), "1"), "{}", won.err);
    assert!(won.err.starts_with("sidecache: the entry should be refreshed"), "{}", won.err);
    let token = won.err.trim_end().rsplit(' ').next().expect("a word");
    assert_eq!(ask(service, &get).expect(0).text(), "1", "the others are answered");
    ask(service, &["release", &ns, "k", token]).expect(0);
    let token = eventually(SOON, async || {
        let mut found = ask(service, &[&get[..], &["--json"]].concat()).expect(0).json();
        assert_eq!(found["value"], 1);
        let token = found["lease"]["token"].take().as_str().map(str::to_owned);
        token.ok_or_else(|| anyhow::anyhow!("{found}"))
    })
    .await;
    assert_eq!(ask(service, &["set", &ns, "k", "2", "--lease", &token]).expect(0).text(), "replaced\n");
}

async fn del_names_the_keys_that_did_not_exist(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    cache.fill(&ns, &json!([{"key": "a", "value": 1}, {"key": "b", "value": 1}, {"key": "c", "value": 1}])).await;
    assert_eq!(ask(service, &["del", &ns, "a"]).expect(0).text(), "deleted 1 entry\n");
    let ran = ask(service, &["del", &ns, "b", "a", "b"]).expect(1);
    assert_eq!(ran.text(), "deleted 1 entry\n");
    assert!(ran.err.contains("no entry \"a\""), "{}", ran.err);
    let results = json!({"c": {"deleted": true}, "x": {"deleted": false}});
    let expected = json!({"namespace": ns, "results": results, "deleted": 1, "not_found": 1, "errors": 0});
    assert_eq!(ask(service, &["del", &ns, "c", "x", "--json"]).expect(1).json(), expected);
    // Marked as stale, not deleted.
    cache.put(&ns, "d", r#"{"value":1,"ttl":600,"stale_while_revalidate":60}"#).await.expect(201);
    let results = json!({"d": {"marked": true}, "x": {"marked": false}});
    let expected = json!({"namespace": ns, "results": results, "marked": 1, "not_found": 1, "errors": 0});
    assert_eq!(ask(service, &["del", &ns, "d", "x", "--stale", "--json"]).expect(1).json(), expected);
    assert_eq!(cache.get(&ns, "d").await.expect(200).header("x-cache-ttl"), Some("0"));
    ask(service, &["del", &ns, "d", "--stale", "--source-version", "1"]).expect(2);
}

async fn mget_keeps_the_order_and_the_bytes(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    cache.set(&ns, "z", "{ \"x\": 1.0 }").await;
    cache.set(&ns, "a", "[1]").await;
    let ran = ask(service, &["mget", &ns, "z", "none", "a", "--json"]).expect(1);
    let text = ran.text();
    let places: Vec<_> = ["\"z\":{", "\"none\":{", "\"a\":{"].map(|part| text.find(part)).into();
    assert!(places.is_sorted() && places.iter().all(Option::is_some), "{text}");
    assert!(text.contains("\"value\":{ \"x\": 1.0 }"), "{text}");
    let document = ran.json();
    assert_eq!((&document["hits"], &document["misses"], &document["errors"]), (&json!(2), &json!(1), &json!(0)));
    // An invalid key fails alone, and the exit code says so.
    let ran = ask(service, &["mget", &ns, "z", "line\nbreak", "--json"]).expect(4);
    assert!(ran.err.contains("\"code\":\"invalid_key\""), "{}", ran.err);
    let answer = ran.json();
    assert_eq!((&answer["hits"], &answer["errors"]), (&json!(1), &json!(1)), "{answer}");
    let table = ask(service, &["mget", &ns, "z", "a"]).expect(0).text();
    assert_eq!(table, "key  value\nz    { \"x\": 1.0 }\na    [1]\n");
    // More keys than fit into one request.
    let keys: Vec<String> = (0..250).map(|number| format!("k{number}")).collect();
    let entries: Vec<Value> = keys.iter().map(|key| json!({"key": key, "value": key})).collect();
    cache.fill(&ns, &json!(entries)).await;
    let words: Vec<&str> = ["mget", &ns, "--json"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    assert_eq!(ask(service, &words).expect(0).json()["hits"], 250);
}

async fn flush_needs_yes_without_a_terminal(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    cache.set(&ns, "k", "1").await.expect(201);
    for words in [vec!["flush", &ns], vec!["flush", &ns, "--pattern", "*"], vec!["namespaces", "delete", &ns]] {
        let ran = ask_with(service, &words, b"y\n").expect(2);
        assert!(ran.err.contains("--yes"), "{}", ran.err);
        assert_eq!(
            ran.err.contains("--dry-run"),
            words[0] == "flush",
            "advises --dry-run only where it exists: {}",
            ran.err
        );
    }
    let ran = ask(service, &["flush", &ns, "--pattern", "*", "--tag", "t", "--yes"]).expect(2);
    for said in ["'--pattern <GLOB>'", "cannot be used with", "'--tag <TAG>'"] {
        assert!(ran.err.contains(said), "{said}: {}", ran.err);
    }
    cache.get(&ns, "k").await.expect(200);
    assert_eq!(ask(service, &["flush", &ns, "--yes"]).expect(0).text(), format!("deleted 1 entry of {ns}\n"));
    cache.get(&ns, "k").await.expect(404);
}

async fn a_dry_run_counts_what_a_flush_deletes(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    let entries: Vec<Value> = (0..120).map(|number| json!({"key": format!("user_{number}"), "value": 1})).collect();
    cache.fill(&ns, &json!(entries)).await;
    let marked = ask(service, &["flush", &ns, "--pattern", "nothing*", "--stale", "--yes"]).expect(0).text();
    assert_eq!(marked, format!("marked 0 entries of {ns} that match \"nothing*\" as stale\n"));
    let shown = ask(service, &["flush", &ns, "--pattern", "user_1*", "--dry-run"]).expect(0).text();
    assert_eq!(shown, format!("31 entries of {ns} that match \"user_1*\" would be deleted\n"));
    let mut expected = json!({"namespace": ns, "pattern": "user_1*", "tag": null, "dry_run": true,
        "matched_count": 31, "deleted_count": 0});
    assert_eq!(
        ask(service, &["flush", &ns, "--pattern", "user_1*", "--dry-run", "--json"]).expect(0).json(),
        expected
    );
    assert_eq!(cache.all_keys(&ns).await.len(), 120);
    expected["dry_run"] = json!(false);
    expected["deleted_count"] = json!(31);
    expected.as_object_mut().expect("an object").remove("matched_count");
    assert_eq!(ask(service, &["flush", &ns, "--pattern", "user_1*", "-y", "--json"]).expect(0).json(), expected);
    assert_eq!(cache.all_keys(&ns).await.len(), 89);
}

/// Runs a command on a terminal of its own. The child process exits with the exit code of the command.
fn on_a_terminal(service: &Service, words: &str) -> Child {
    let mut command = Command::new(process::program_named("script", "bsdutils"));
    let words = format!("set -f; {} {words}", env!("CARGO_BIN_EXE_sidecache"));
    command.args(["--quiet", "--return", "--command", &words, "/dev/null"]);
    command.env("SIDECACHE_URL", format!("http://{}", service.address())).env("TERM", "xterm");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script starts")
}

async fn on_a_terminal_a_flush_counts_and_asks(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    cache.fill(&ns, &json!([{"key": "a1", "value": 1}, {"key": "a2", "value": 1}, {"key": "b", "value": 1}])).await;
    for (answer, code, left) in [("n", 1, 3), ("", 1, 3), ("yes", 0, 1)] {
        let mut child = on_a_terminal(service, &format!("flush {ns} --pattern a*"));
        let (mut stdin, mut stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let (mut seen, mut byte) = (Vec::new(), [0]);
        while !seen.ends_with(b"[y/N] ") {
            stdout.read_exact(&mut byte).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&seen)));
            seen.push(byte[0]);
        }
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert!(seen.contains(&format!("Delete 2 entries of {ns} that match \"a*\"?")), "{seen}");
        stdin.write_all(format!("{answer}\n").as_bytes()).expect("the command reads");
        std::io::copy(&mut stdout, &mut std::io::sink()).expect("the rest is read");
        assert_eq!(child.wait().expect("script ends").code(), Some(code), "{answer:?}");
        assert_eq!(cache.all_keys(&ns).await.len(), left, "{answer:?}");
    }
}

/// The bug: the command asked whether to delete 0 entries.
async fn regression_on_a_terminal_a_flush_without_matches_says_so_without_asking(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    cache.set(&ns, "k", "1").await.expect(201);
    for (words, said) in [
        ("--pattern a*", format!("there are no entries of {ns} that match \"a*\"; nothing was deleted")),
        ("--pattern a* --json", "\"deleted_count\":0}".to_owned()),
    ] {
        let mut child = on_a_terminal(service, &format!("flush {ns} {words}"));
        // Standard input stays open, so a command that asks would wait for an answer.
        let stdin = child.stdin.take().expect("a pipe");
        let mut stdout = child.stdout.take().expect("a pipe");
        let (mut seen, mut byte) = (Vec::new(), [0]);
        while stdout.read(&mut byte).expect("the output can be read") > 0 && !seen.ends_with(b"[y/N] ") {
            seen.push(byte[0]);
        }
        drop(stdin);
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert!(seen.contains(&said) && !seen.contains("[y/N]"), "{seen}");
        assert_eq!(child.wait().expect("script ends").code(), Some(0), "{seen}");
    }
    let shown = ask(service, &["flush", &ns, "--pattern", "a*", "--yes"]).expect(0).text();
    assert_eq!(shown, format!("deleted 0 entries of {ns} that match \"a*\"\n"));
    cache.get(&ns, "k").await.expect(200);
}

async fn keys_are_listed_line_by_line(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    assert_eq!(ask(service, &["keys", &ns]).expect(0).text(), "");
    for thousand in 0..3 {
        let entries: Vec<Value> =
            (0..1_000).map(|n| json!({"key": format!("{thousand}_{n}"), "value": 1, "tags": ["t"]})).collect();
        cache.fill(&ns, &json!(entries)).await;
    }
    let count = |arguments: &[&str]| ask(service, arguments).expect(0).text().lines().count();
    assert_eq!(count(&["keys", &ns]), 3_000);
    assert_eq!(count(&["keys", &ns, "--limit", "1500"]), 1_500);
    assert_eq!(count(&["keys", &ns, "--limit", "7", "--pattern", "2_*"]), 7);
    assert_eq!(count(&["keys", &ns, "--pattern", "1_*"]), 1_000);
    assert_eq!(count(&["keys", &ns, "--tag", "t"]), 3_000);
    let lines = ask(service, &["keys", &ns, "--json", "--limit", "2", "--pattern", "0_1"]).expect(0);
    assert_eq!(lines.json(), json!({"key": "0_1"}));
}

async fn a_closed_stdout_ends_a_listing_quietly(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    // Enough keys to fill the pipe.
    for thousand in 0..5 {
        let entries: Vec<Value> =
            (0..1_000).map(|n| json!({"key": format!("{}_{thousand}_{n}", "long".repeat(20)), "value": 1})).collect();
        cache.fill(&ns, &json!(entries)).await;
    }
    let mut command = program(&["keys", &ns]);
    command.env("SIDECACHE_URL", format!("http://{}", service.address()));
    let mut child = command.spawn().expect("the program starts");
    let mut first = String::new();
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped"));
    lines.read_line(&mut first).expect("a line");
    assert!(first.starts_with("long"), "{first}");
    drop(lines);
    let output = child.wait_with_output().expect("the program ends");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

/// The bug: the exit code was 5, as if the service or a shard had failed.
async fn regression_an_answer_that_cannot_be_written_is_exit_code_7(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    let full = |words: &[&str]| {
        let mut command = program(words);
        command.env("SIDECACHE_URL", format!("http://{}", service.address()));
        let full = File::options().write(true).open("/dev/full").expect("Linux has a device that is always full");
        let ran = finish_into(command, b"", full.into()).expect(7);
        assert!(ran.err.contains("the output cannot be written: No space left on device"), "{}", ran.err);
    };
    full(&["set", &ns, "k", "1"]);
    assert_eq!(cache.get(&ns, "k").await.value(), "1");
    for words in [vec!["get", &ns, "k"], vec!["del", &ns, "k"], vec!["print-config"], vec!["completions", "bash"]] {
        full(&words);
    }
    full(&["--help"]);
    cache.get(&ns, "k").await.expect(404);
}

async fn stats_are_those_of_the_service(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    cache.set(&ns, "k", "\"0123456789\"").await.expect(201);
    cache.get(&ns, "k").await.expect(200);
    cache.get(&ns, "none").await.expect(404);
    let asked = cache.stats(&ns).await.expect(200).json();
    assert_eq!(ask(service, &["stats", &ns, "--json"]).expect(0).json(), asked);
    let shown = ask(service, &["stats", &ns]).expect(0).text();
    for line in ["keys             1", "memory        12 B", "hit rate     50.0%"] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in\n{shown}");
    }
}

async fn watched_stats_are_printed_repeatedly(service: &Service) {
    let ns = namespace("cli");
    let mut command = program(&["stats", &ns, "--watch", "0.1", "--json"]);
    command.env("SIDECACHE_URL", format!("http://{}", service.address()));
    let mut child = command.spawn().expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    for _ in 0..3 {
        let line = lines.next().expect("another line").expect("a line of text");
        let stats: Value = serde_json::from_str(&line).expect("a line is a document");
        assert_eq!(stats["namespace"], *ns);
    }
    drop(lines);
    let output = child.wait_with_output().expect("the program ends");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    let ran = ask(service, &["stats", "--watch", &ns]).expect(2);
    assert!(ran.err.contains("put the namespace before --watch"), "{}", ran.err);
}

async fn policies_are_created_changed_and_deleted(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    let shown = ask(service, &["namespaces", "set", &ns, "--ttl", "1h", "--eviction", "lfu"]).expect(0).text();
    assert!(shown.starts_with("created\n") && shown.contains("LFU"), "{shown}");
    let shown = ask(service, &["namespaces", "set", &ns, "--max-size-mb", "5", "--json"]).expect(0).json();
    assert_eq!(
        (&shown["default_ttl"], &shown["max_size_mb"], &shown["eviction_policy"]),
        (&json!(3_600), &json!(5), &json!("LFU"))
    );
    let shown = ask(service, &["namespaces", "set", &ns, "--stale-if-error", "30"]).expect(0).text();
    assert!(shown.starts_with("changed\n") && shown.contains("LFU") && shown.contains("1h"), "{shown}");
    assert!(shown.contains("1m"), "the time of tombstones: {shown}");
    let words =
        ["--ttl-jitter", "0.1", "--refresh-after=0.8", "--stale-while-revalidate", "30s", "--tombstone-ttl=2m"];
    let shown = ask(service, &[&["namespaces", "set", &ns], &words[..]].concat()).expect(0).text();
    assert!(["10 %", "80 %", "30s", "2m"].iter().all(|value| shown.contains(value)), "{shown}");
    assert_eq!(ask(service, &["namespaces", "get", &ns, "--json"]).expect(0).json(), cache.policy(&ns).await.json());
    let ran = ask(service, &["namespaces", "set", &ns, "--ttl-jitter", "0.6"]).expect(4);
    assert!(ran.err.contains("ttl_jitter") && ran.err.contains("0.5"), "{}", ran.err);
    cache.set(&ns, "k", "1").await.expect(201);
    let deleted = ask(service, &["namespaces", "delete", &ns, "--yes", "--json"]).expect(0).json();
    assert_eq!(deleted, json!({"namespace": ns, "deleted": true, "deleted_count": 1}));
    cache.policy(&ns).await.expect_error(404, "namespace_not_found");
    ask(service, &["namespaces", "delete", &ns, "--yes"]).expect(1);
    let ran = ask(service, &["namespaces", "set", &ns, "--eviction", "MRU"]).expect(2);
    assert!(ran.err.contains("LRU"), "{}", ran.err);
}

async fn namespaces_are_listed_with_their_numbers(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    cache.put_policy(&ns, r#"{"default_ttl":90,"max_size_mb":7}"#).await.expect(201);
    cache.set(&ns, "k", "\"0123456789\"").await.expect(201);
    let listed = ask(service, &["namespaces", "--json"]).expect(0).json();
    let found = listed["namespaces"].as_array().and_then(|all| all.iter().find(|one| one["name"] == *ns));
    let found = found.unwrap_or_else(|| panic!("{ns} in {listed}"));
    assert_eq!((&found["default_ttl"], &found["stats"]["memory_used_bytes"]), (&json!(90), &json!(12)));
    let table = ask(service, &["namespaces"]).expect(0).text();
    let line = table.lines().find(|line| line.starts_with(&format!("{ns} "))).expect("a line of the namespace");
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(cells[1..], ["1m", "30s", "7", "MiB", "LRU", "off", "1", "12", "B", "-", "0"]);
    let policies = ask(service, &["namespaces", "list", "--no-stats", "--json"]).expect(0).json();
    let found = policies["namespaces"].as_array().and_then(|all| all.iter().find(|one| one["name"] == *ns));
    assert_eq!(found.map(|one| &one["stats"]), Some(&Value::Null));
}

async fn the_cluster_is_shown(service: &Service) {
    let document = ask(service, &["cluster", "--json"]).expect(0).json();
    let here = document["instances"].as_array().and_then(|all| all.iter().find(|one| one["self"] == true));
    let id = here.and_then(|one| one["id"].as_str()).expect("the instance that was asked");
    let shown = ask(service, &["cluster"]).expect(0).text();
    assert!(shown.contains(&format!("{id} *")) && shown.contains("connected"), "{shown}");
}

async fn a_refused_request_is_exit_code_4(service: &Service) {
    let ns = namespace("cli");
    for (words, code) in [
        (vec!["set", &ns, "stats", "1"], "reserved_key"),
        (vec!["get", "no namespace", "k"], "invalid_namespace"),
        (vec!["set", &ns, "line\nbreak", "1"], "invalid_key"),
        (vec!["keys", &ns, "--pattern", ""], "invalid_pattern"),
    ] {
        let words: Vec<&str> = words.into_iter().chain(["--json"]).collect();
        let ran = ask(service, &words).expect(4);
        let error: Value = serde_json::from_str(&ran.err).expect("errors are JSON as well");
        assert_eq!((&error["code"], &error["exit_code"]), (&json!(code), &json!(4)), "{words:?}");
        assert!(error["request_id"].as_str().is_some_and(|id| id.starts_with("cli-")), "{error}");
    }
}

async fn request_ids_say_that_the_cli_sent_the_request(service: &Service) {
    let (cache, ns) = (service.client(), namespace("cli"));
    cache.set(&ns, "k", "1").await.expect(201);
    ask(service, &["flush", &ns, "--yes"]).expect(0);
    eventually(SOON, async || {
        let page = cache.audit(&ns, &[]).await.expect(200).json();
        let id = page["audit"][0]["request_id"].as_str().unwrap_or_default().to_owned();
        anyhow::ensure!(id.starts_with("cli-"), "{page}");
        Ok(())
    })
    .await;
    let ran = ask(service, &["get", "no namespace", "k"]).expect(4);
    assert!(ran.err.contains("(request cli-"), "{}", ran.err);
}

/// The bug: the service answered with the statistics, and the command said that the answer is not from a sidecache.
async fn regression_the_key_stats_is_reported_as_reserved(service: &Service) {
    let ns = namespace("cli");
    for words in [vec!["get", &ns, "stats"], vec!["get", &ns, "stats", "--metadata", "--json"]] {
        let ran = ask(service, &words).expect(2);
        assert!(ran.err.contains("reserved") && ran.err.contains(&format!("`sidecache stats {ns}`")), "{}", ran.err);
    }
}

/// The bug: the message pointed to the statistics, which do not show the quota.
async fn regression_the_error_for_a_full_namespace_says_where_to_see_the_quota(service: &Service) {
    let ns = namespace("cli");
    ask(service, &["namespaces", "set", &ns, "--max-size-mb", "1", "--eviction", "none"]).expect(0);
    let large = format!("\"{}\"", "x".repeat(200 << 10));
    let mut rans = (0..10).map(|key| ask_with(service, &["set", &ns, &key.to_string()], large.as_bytes()));
    let ran = rans.find(|ran| ran.code != Some(0)).expect("ten are too many").expect(5);
    assert!(ran.err.contains("`sidecache namespaces` shows quotas"), "{}", ran.err);
    let table = ask(service, &["namespaces"]).expect(0).text();
    let columns = table.lines().next().unwrap_or_default();
    assert!(columns.contains("quota") && columns.contains("hit rate"), "{columns}");
}

async fn options_may_come_before_the_command(service: &Service) {
    let (ns, url) = (namespace("cli"), format!("http://{}/", service.address()));
    for words in [
        vec!["--url", &url, "--json", "stats", &ns],
        vec!["stats", "--url", &url, "--json", &ns],
        vec!["--json", "stats", &ns, "--url", &url, "--timeout", "20s"],
    ] {
        assert_eq!(run_program(&words).expect(0).json()["namespace"], *ns);
    }
}

async fn the_names_of_the_http_interface_are_accepted(service: &Service) {
    let ns = namespace("cli");
    assert_eq!(ask(service, &["put", &ns, "k", "1"]).expect(0).text(), "created\n");
    assert_eq!(ask(service, &["delete", &ns, "k"]).expect(0).text(), "deleted 1 entry\n");
    let words = ["--default-ttl=1h", "--eviction-policy=lfu", "--max-size-mb=5", "--stale-if-error=1m", "--json"];
    let policy = ask(service, &[&["namespaces", "set", &ns], &words[..]].concat()).expect(0).json();
    assert_eq!((&policy["default_ttl"], &policy["eviction_policy"]), (&json!(3_600), &json!("LFU")));
    // These names are accepted but not documented, so that nobody has to learn two names.
    let help = run_program(&["--help"]).expect(0).text();
    assert!(!["  put ", "  delete "].iter().any(|word| help.contains(word)), "{help}");
    let help = run_program(&["namespaces", "set", "--help"]).expect(0).text();
    assert!(!["--default-ttl", "--eviction-policy"].iter().any(|word| help.contains(word)), "{help}");
}

#[test]
fn an_unreachable_service_is_exit_code_3() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
    let url = format!("http://127.0.0.1:{port}");
    for words in [vec!["get", "ns", "k"], vec!["set", "ns", "k", "1"], vec!["flush", "ns", "--yes"], vec!["cluster"]]
    {
        let words: Vec<&str> = words.into_iter().chain(["--url", &url]).collect();
        let ran = run_program(&words).expect(3);
        let said =
            format!("sidecache: cannot reach {url}: connection refused; is the service running? start it with");
        assert!(ran.err.starts_with(&said) && ran.err.contains("--url"), "{}", ran.err);
    }
    let ran =
        run_program(&["get", "ns", "k", "--url", "http://no-such-host.invalid:1", "--timeout", "20s"]).expect(3);
    assert!(ran.err.contains("cannot reach"), "{}", ran.err);
}

#[tokio::test]
async fn a_change_without_an_answer_is_exit_code_6() {
    let service = Service::start(Settings::embedded());
    service.client().set("cli", "k", "1").await.expect(201);
    service.signal(Signal::Stop);
    // The kernel accepts the connection, and nobody answers.
    ask(&service, &["get", "cli", "k", "--timeout", "200ms"]).expect(3);
    for words in [vec!["set", "cli", "k", "2"], vec!["del", "cli", "k"], vec!["flush", "cli", "--yes"]] {
        let words: Vec<&str> = words.into_iter().chain(["--timeout", "200ms"]).collect();
        let ran = ask(&service, &words).expect(6);
        assert!(ran.err.contains("did not answer"), "{}", ran.err);
    }
    service.signal(Signal::Cont);
}

/// The bug: a path that ends in `mget` counted as that of the mget call, so no request to it counted as a change.
#[tokio::test]
async fn regression_an_unanswered_change_of_a_key_or_namespace_named_mget_is_exit_code_6() {
    let service = Service::start(Settings::embedded());
    service.signal(Signal::Stop);
    let changes = [
        vec!["set", "users", "mget", "1"],
        vec!["del", "users", "mget"],
        vec!["flush", "mget", "--yes"],
        vec!["namespaces", "delete", "mget", "--yes"],
    ];
    let reads = [
        vec!["get", "users", "mget"],
        vec!["mget", "users", "mget"],
        vec!["flush", "mget", "--dry-run"],
        vec!["namespaces", "get", "mget"],
    ];
    for (commands, code) in [(changes, 6), (reads, 3)] {
        for words in commands {
            let words: Vec<&str> = words.into_iter().chain(["--timeout", "200ms"]).collect();
            let ran = ask(&service, &words).expect(code);
            assert!(ran.err.contains("did not answer"), "{words:?}: {}", ran.err);
        }
    }
    service.signal(Signal::Cont);
}

/// The bug: for any answer without an error code, the command said that it is not from a sidecache, and exited with
/// 3, which means that nothing happened.
#[tokio::test]
async fn regression_a_change_that_a_gateway_gives_up_has_an_unknown_outcome() {
    let service = Service::start(Settings::embedded());
    let (silent, absent) = (service.address(), ports::free());
    let nginx = Nginx::start(|port| {
        let refusals = [401, 403, 404, 413, 429].map(|code| format!("location /{code}/ {{ return {code}; }}\n"));
        format!(
            "server {{ listen 127.0.0.1:{port};\n\
             location /silent/ {{ proxy_pass http://{silent}/; proxy_read_timeout 200ms; }}\n\
             location /absent/ {{ proxy_pass http://127.0.0.1:{absent}/; }}\n{} }}",
            refusals.concat()
        )
    });
    let run = |words: &[&str], place: &str| {
        let url = format!("http://{}/{place}", nginx.address());
        run_program(&[words, &["--url", &url]].concat())
    };
    let changes: [&[&str]; 4] = [
        &["set", "ns", "k", "1"],
        &["del", "ns", "k"],
        &["flush", "ns", "--yes"],
        &["namespaces", "delete", "ns", "--yes"],
    ];
    let reads: [&[&str]; 4] =
        [&["get", "ns", "k"], &["mget", "ns", "k"], &["stats", "ns"], &["flush", "ns", "--dry-run"]];
    run(changes[0], "silent").expect(0);
    service.signal(Signal::Stop);
    for (place, status) in [("silent", "504 Gateway"), ("absent", "502 Bad Gateway")] {
        for words in changes {
            let ran = run(words, place).expect(6);
            assert!(ran.err.contains(status) && ran.err.contains("before you repeat the command"), "{}", ran.err);
        }
        for words in reads {
            let ran = run(words, place).expect(5);
            assert!(ran.err.contains(status) && ran.err.contains("proxy"), "{}", ran.err);
        }
    }
    service.signal(Signal::Cont);
    for words in changes.into_iter().chain(reads) {
        for place in ["401", "403", "413", "429"] {
            let ran = run(words, place).expect(4);
            assert!(ran.err.contains(place) && ran.err.contains("proxy in between?"), "{}", ran.err);
        }
        let ran = run(words, "404").expect(3);
        assert!(ran.err.contains("is not a sidecache: it answered 404"), "{}", ran.err);
    }
}

/// A TLS proxy in front of a service, with a certificate for 127.0.0.1 from its own CA.
struct Tls {
    nginx: Nginx,
    ca: PathBuf,
    _folder: TempDir,
}

impl Tls {
    fn in_front_of(service: &Service) -> Tls {
        const EXTENSIONS: &str = "[req]\ndistinguished_name = name\n[name]\n[ca]\nbasicConstraints = critical, CA:TRUE\n\
            [service]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = IP:127.0.0.1\n";
        let folder = scratch::folder("tls");
        scratch::file(folder.path(), "openssl.cnf", EXTENSIONS);
        for (name, issued) in [("ca", ""), ("service", "-CA ca.pem -CAkey ca.key")] {
            let words = format!(
                "req -x509 -config openssl.cnf -extensions {name} -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 \
                 -nodes -days 2 -subj /CN=tests-{name} -keyout {name}.key -out {name}.pem {issued}"
            );
            let mut openssl = Command::new(process::program_named("openssl", "openssl"));
            let made = openssl.args(words.split_whitespace()).current_dir(folder.path()).output();
            let made = made.expect("openssl runs");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        let (path, address) = (folder.path().display(), service.address());
        let nginx = Nginx::start(|port| {
            format!(
                "server {{ listen 127.0.0.1:{port} ssl;\n\
                 ssl_certificate {path}/service.pem; ssl_certificate_key {path}/service.key;\n\
                 location / {{ proxy_pass http://{address}; }} }}"
            )
        });
        Tls { nginx, ca: folder.path().join("ca.pem"), _folder: folder }
    }

    /// Runs a command against an address, with the CA certificates that the command trusts.
    fn ask(&self, address: SocketAddr, trusted: Option<&Path>, words: &[&str]) -> Finished {
        let mut command = program(words);
        command.env("SIDECACHE_URL", format!("https://{address}"));
        if let Some(trusted) = trusted {
            command.env("SSL_CERT_FILE", trusted);
        }
        finish(command, b"")
    }
}

/// The bug: only Mozilla's list of CAs was trusted, which contains no private CA.
#[tokio::test]
async fn regression_a_private_ca_that_the_machine_trusts_is_trusted() {
    let service = Service::start(Settings::embedded());
    let tls = Tls::in_front_of(&service);
    let (cache, address) = (service.client(), tls.nginx.address());
    let ran = tls.ask(address, None, &["set", "cli", "k", "1"]).expect(3);
    assert!(ran.err.contains("UnknownIssuer") && ran.err.contains("SSL_CERT_FILE"), "{}", ran.err);
    cache.get("cli", "k").await.expect(404);
    assert_eq!(tls.ask(address, Some(&tls.ca), &["set", "cli", "k", "1.0"]).expect(0).text(), "created\n");
    assert_eq!(tls.ask(address, Some(&tls.ca), &["get", "cli", "k"]).expect(0).text(), "1.0");
    // A server without TLS receives no request either.
    let ran = tls.ask(service.address(), Some(&tls.ca), &["del", "cli", "k"]).expect(3);
    let said = format!("the server does not speak TLS; did you mean http://{}?", service.address());
    assert!(ran.err.contains(&said), "{}", ran.err);
    cache.get("cli", "k").await.expect(200);
    let ran = tls.ask(address, Some(Path::new("/nowhere.pem")), &["get", "cli", "k"]).expect(2);
    assert!(ran.err.contains("SSL_CERT_FILE: ") && ran.err.contains("/nowhere.pem"), "{}", ran.err);
}

/// The bug: every TLS error counted as one of the handshake, that is, from before the request was sent.
#[tokio::test]
async fn regression_a_change_with_a_damaged_answer_has_an_unknown_outcome() {
    let service = Service::start(Settings::embedded());
    let tls = Tls::in_front_of(&service);
    let damaging = damaging_proxy(tls.nginx.address());
    let ran = tls.ask(damaging, Some(&tls.ca), &["set", "cli", "k", "1"]).expect(6);
    assert!(ran.err.contains("did not answer"), "{}", ran.err);
    // The change did happen.
    eventually(SOON, async || {
        let answer = service.client().get("cli", "k").await;
        anyhow::ensure!(answer.status == 200, "{}", answer.text());
        Ok(())
    })
    .await;
    tls.ask(damaging, Some(&tls.ca), &["get", "cli", "k"]).expect(3);
}

/// Forwards connections to a TLS server, and flips a bit in each block that the server sends after the handshake.
fn damaging_proxy(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let server = TcpStream::connect(server).expect("the server listens");
            let (mut from_client, mut to_server) =
                (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
            let is_over = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&is_over);
            thread::spawn(move || {
                let (mut sent, mut bytes, mut record) = (Vec::new(), [0; 4096], 0);
                while let Ok(length @ 1..) = from_client.read(&mut bytes) {
                    sent.extend_from_slice(&bytes[..length]);
                    // A record starts with a byte for its kind, two for the version and two for the length. The first
                    // record of kind 23 ends the client's handshake
                    // (<https://www.rfc-editor.org/rfc/rfc8446#section-5.1>).
                    while let Some(&[kind, _, _, high, low]) = sent.get(record..record + 5) {
                        seen.fetch_or(kind == 23, Ordering::SeqCst);
                        record += 5 + usize::from(u16::from_be_bytes([high, low]));
                    }
                    if to_server.write_all(&bytes[..length]).is_err() {
                        break;
                    }
                }
                // The connection may be closed already.
                let _ = to_server.shutdown(Shutdown::Both);
            });
            let (mut from_server, mut to_client, mut bytes) = (server, client, [0; 4096]);
            while let Ok(length @ 1..) = from_server.read(&mut bytes) {
                bytes[length - 1] ^= u8::from(is_over.load(Ordering::SeqCst));
                if to_client.write_all(&bytes[..length]).is_err() {
                    break;
                }
            }
            // This connection may be closed as well.
            let _ = to_client.shutdown(Shutdown::Both);
        }
    });
    address
}

/// The bugs: the last failure decided the exit code, even if it only said that a request was not sent; and the keys
/// that were not tried were not reported.
#[tokio::test]
async fn regression_del_exits_with_the_worst_outcome_and_names_keys_not_tried() {
    let servers = Redis::three();
    let service = Service::start(Settings::on(&servers).set("redis_timeout_ms", 500));
    let address = service.address();
    service.client().set("cli", "a", "1").await.expect(201);
    servers.iter().for_each(|server| server.signal(Signal::Stop));
    // A proxy answers one of the service's paths itself.
    let nginx = Nginx::start(|port| {
        format!(
            "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{address}; }}\n\
             location = /api/v1/cache/cli/b {{ return 404; }} }}"
        )
    });
    let ran =
        run_program(&["del", "cli", "a", "b", "c", "d", "--json", "--url", &format!("http://{}", nginx.address())])
            .expect(6);
    servers.iter().for_each(|server| server.signal(Signal::Cont));
    let error = |error: &str| json!({"deleted": false, "error": error});
    let results = json!({"a": error("outcome_unknown"), "b": error("no_answer"), "c": error("not_tried"),
        "d": error("not_tried")});
    let expected = json!({"namespace": "cli", "results": results, "deleted": 0, "not_found": 0, "errors": 4});
    assert_eq!(ran.json(), expected);
    assert!(ran.err.contains("2 keys were not tried"), "{}", ran.err);
    let nobody = format!("http://127.0.0.1:{}", ports::free());
    let ran = run_program(&["del", "cli", "a", "b", "--url", &nobody]).expect(3);
    assert_eq!(ran.text(), "deleted 0 entries\n");
    assert!(ran.err.contains("1 key was not tried"), "{}", ran.err);
}

#[tokio::test]
async fn a_shard_that_is_down_is_exit_code_5() {
    let mut servers = Redis::three();
    let service = Service::start(Settings::on(&servers).set("redis_timeout_ms", 500));
    let cache = service.client();
    let keys: Vec<String> = (0..60).map(|number| format!("k{number}")).collect();
    let entries: Vec<Value> = keys.iter().map(|key| json!({"key": key, "value": 1})).collect();
    cache.fill("cli", &json!(entries)).await;
    servers[0].kill();
    eventually(SOON, async || {
        let cluster = ask(&service, &["cluster"]).expect(0).text();
        anyhow::ensure!(cluster.contains("disconnected") && cluster.contains("warning: shard"), "{cluster}");
        Ok(())
    })
    .await;
    let words: Vec<&str> = ["mget", "cli", "--json"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    let ran = ask(&service, &words).expect(5);
    let document = ran.json();
    let lost = keys.iter().find(|key| !document["results"][key]["error"].is_null()).expect("a key of the dead shard");
    let ran = ask(&service, &["get", "cli", lost, "--fresh"]).expect(5);
    assert!(ran.err.contains("sidecache cluster") || ran.err.contains("try again"), "{}", ran.err);
    ask(&service, &["stats", "cli"]).expect(5);
    ask(&service, &["del", "cli", lost]).expect(5);
}

/// The bug: only the HTTP answer said that a value is stale; the command line showed it like any other.
#[tokio::test]
async fn regression_a_stale_answer_says_so() {
    let mut server = Redis::start();
    let service = Service::start(Settings::on(std::slice::from_ref(&server)));
    let (cache, ns) = (service.client(), namespace("cli"));
    ask(&service, &["namespaces", "set", &ns, "--stale-if-error", "10m"]).expect(0);
    for key in ["a", "b"] {
        cache.set(&ns, key, "1.0").await.expect(201);
        eventually(SOON, async || {
            let answer = cache.get(&ns, key).await;
            anyhow::ensure!(answer.is_l1_hit(), "{:?}", answer.header("cache-status"));
            Ok(())
        })
        .await;
        let fresh = ask(&service, &["get", &ns, key, "--json"]).expect(0).json();
        assert_eq!(fresh.get("stale"), None, "{fresh}");
    }
    server.kill();
    for key in ["a", "b"] {
        eventually(LATER, async || {
            let ran = ask(&service, &["get", &ns, key, "--json"]).expect(0).json();
            anyhow::ensure!(ran["stale"] == true, "{ran}");
            Ok(())
        })
        .await;
    }
    let ran = ask(&service, &["get", &ns, "a"]);
    assert_eq!((ran.code, ran.text().as_str()), (Some(0), "1.0"));
    assert!(ran.err.starts_with("sidecache: stale: the entry's shard does not answer"), "{}", ran.err);
    let ran = ask(&service, &["mget", &ns, "a", "b"]);
    assert_eq!((ran.code, ran.text().as_str()), (Some(0), "key  value\na    1.0\nb    1.0\n"));
    assert!(ran.err.starts_with("sidecache: stale: \"a\", \"b\": shards do not answer"), "{}", ran.err);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    let document = ask(&service, &["mget", &ns, "a", "b", "--json"]).expect(0).json();
    assert_eq!(document["results"]["b"]["stale"], true);
}

/// The bug: the first 503 ended `stats --watch`.
#[tokio::test]
async fn regression_watched_stats_continue_after_an_outage() {
    let mut server = Redis::start();
    let service = Service::start(Settings::on(std::slice::from_ref(&server)).set("redis_timeout_ms", 500));
    let watch = |more: &[&str]| {
        let mut command = program(&[&["stats", "cli", "--watch", "0.1"], more].concat());
        command.env("SIDECACHE_URL", format!("http://{}", service.address()));
        let mut child = command.spawn().expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        (child, lines.map(|line| line.expect("a line of text")))
    };
    let (document_child, mut documents) = watch(&["--json"]);
    let (table_child, mut tables) = watch(&[]);
    let is_document = |line: &String, field: &str| {
        let document: Value = serde_json::from_str(line).expect("a line is a document");
        !document[field].is_null()
    };
    // The numbers, then an error, then the numbers again; a minute is long enough for each.
    const MOST: usize = 600;
    documents.by_ref().take(MOST).find(|line| is_document(line, "hit_rate")).expect("numbers");
    tables.by_ref().take(MOST).find(|line| line.starts_with("hit rate ")).expect("numbers");
    server.kill();
    let error = documents.by_ref().take(MOST).find(|line| is_document(line, "error")).expect("an error");
    let error: Value = serde_json::from_str(&error).expect("a document");
    assert!(error["code"].is_string(), "{error}");
    tables.by_ref().take(10 * MOST).find(|line| line.starts_with("sidecache: ")).expect("an error");
    server.run();
    documents.by_ref().take(MOST).find(|line| is_document(line, "hit_rate")).expect("numbers");
    tables.by_ref().take(10 * MOST).find(|line| line.starts_with("hit rate ")).expect("numbers");
    drop((documents, tables));
    for child in [document_child, table_child] {
        let output = child.wait_with_output().expect("the program ends");
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    }
    let ran = ask(&service, &["stats", "no namespace", "--watch"]).expect(4);
    assert_eq!(ran.text(), "");
}

#[test]
fn a_typing_error_is_answered_with_a_suggestion() {
    let of_clap: &[(&[&str], &[&str])] = &[
        (&["stat", "ns"], &["'stat'", "similar subcommand", "'stats'"]),
        (&["flsh", "ns"], &["'flsh'", "similar subcommand", "'flush'"]),
        (&["gett", "ns", "k"], &["'gett'", "similar subcommand", "'get'"]),
        (&["gte", "ns", "k"], &["unrecognized subcommand 'gte'", "similar subcommand"]),
        (&["zzz"], &["unrecognized subcommand 'zzz'", "Usage: sidecache"]),
        (&["namespaces", "users"], &["unrecognized subcommand 'users'", "Usage: sidecache namespaces"]),
        (&["namespaces", "test"], &["unrecognized subcommand 'test'", "Usage: sidecache namespaces"]),
        (&["namespaces", "settings"], &["unrecognized subcommand 'settings'", "Usage: sidecache namespaces"]),
        (&["namespaces", "delte", "users"], &["'delte'", "similar subcommand", "'delete'"]),
        (&["namespaces", "gte", "users"], &["unrecognized subcommand 'gte'", "Usage: sidecache namespaces"]),
        (&["get", "ns"], &["required", "<KEY>", "Usage: sidecache get"]),
        (&["get", "ns", ""], &["a value is required for '<KEY>'"]),
        (&["flush", "", "--yes"], &["a value is required for '<NS>'"]),
        (&["get", "ns", "a", "b"], &["unexpected argument 'b'", "Usage: sidecache get"]),
        (&["get", "ns", "k", "--metadat"], &["unexpected argument '--metadat'", "'--metadata'"]),
        (&["serve", "--l1-maxmb", "1"], &["unexpected argument '--l1-maxmb'", "'--l1-max-mb'"]),
        (&["get", "ns", "k", "--timeout", "soon"], &["'soon'", "'--timeout <TIME>'", "expected a time"]),
        (&["get", "ns", "-dash"], &["unexpected argument '-d'", "to pass '-d' as a value, use '-- -d'"]),
        (&["cluster", "--nodes"], &["unexpected argument '--nodes'", "Usage: sidecache cluster", "--help"]),
        (&["completions", "tcsh"], &["'tcsh'", "<SHELL>", "bash"]),
    ];
    for (words, said) in of_clap {
        let ran = run_program(words).expect(2);
        assert!(ran.err.starts_with("error: ") && ran.out.is_empty(), "{words:?}: {}", ran.err);
        let json = run_program(&[*words, &["--json"]].concat()).expect(2);
        let document: Value = serde_json::from_str(&json.err).expect("errors are JSON as well");
        assert_eq!(document["exit_code"], 2, "{document}");
        let error = document["error"].as_str().expect("a message");
        for said in *said {
            assert!(ran.err.contains(said) && error.contains(said), "{words:?}: {said}: {}{error}", ran.err);
        }
    }
    for (words, said) in [
        (vec!["--l1-max-mb", "1", "get", "ns", "k"], "--l1-max-mb: `get` takes no settings of the service"),
        (vec!["--workers", "1", "serve", "--workers", "2"], "--workers: given more than once"),
        (vec!["--url", "http://h", "serve"], "--url: `serve` does not take this option"),
        (vec!["serve", "--json"], "--json: `serve` does not take this option"),
        (vec!["get", "ns", "k", "--url", "127.0.0.1:8080"], "did you mean http://127.0.0.1:8080?"),
        (vec!["get", "ns", "k", "--url", "ftp://h"], "expected http://"),
    ] {
        let ran = run_program(&words).expect(2);
        assert!(ran.err.contains(said), "{words:?}: {}", ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    }
}

/// The bug: these commands silently accepted the options, although they have no effect.
#[test]
fn regression_options_for_a_service_are_refused_by_commands_without_a_service() {
    for command in [vec!["check-config"], vec!["print-config"], vec!["migrate"], vec!["completions", "bash"]] {
        for (option, value) in [("--url", "http://h"), ("--timeout", "1s")] {
            let ran = run_program(&[&[option, value], &command[..]].concat()).expect(2);
            let said = format!("sidecache: {option}: `{}` does not take this option", command[0]);
            assert_eq!(ran.err, format!("{said}; it is for commands that call a service\n"));
        }
    }
    run_program(&["--json", "print-config"]).expect(0);
}

/// The bugs: an error in the variable was reported as an error in the option, and the message showed a password.
#[test]
fn regression_the_error_for_a_wrong_address_names_its_origin_and_hides_the_password() {
    let mut command = program(&["cluster"]);
    command.env("SIDECACHE_URL", "user:geheim@host:80");
    let ran = finish(command, b"").expect(2);
    let said = "sidecache: SIDECACHE_URL: expected http://<host>:<port>, not \"***@host:80\"; did you mean ";
    assert_eq!(ran.err, format!("{said}http://***@host:80?\n"));
    for (url, said) in
        [("user:geh/eim@host:80", "not \"***@host:80\""), ("ftp://user:geheim@host", "expected http://")]
    {
        let ran = run_program(&["cluster", "--url", url]).expect(2);
        assert!(ran.err.starts_with("sidecache: --url: ") && ran.err.contains(said), "{}", ran.err);
        assert!(!ran.err.contains("geh"), "{}", ran.err);
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    let help = run_program(&["--help"]).expect(0).text();
    for command in [
        "serve",
        "get",
        "set",
        "touch",
        "del",
        "mget",
        "release",
        "flush",
        "keys",
        "stats",
        "namespaces",
        "cluster",
        "check-config",
        "print-config",
        "migrate",
        "completions",
    ] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{command} "))), "{command}\n{help}");
        let own = run_program(&[command, "--help"]).expect(0).text();
        assert!(own.contains("Usage: sidecache") && own.contains("Examples:") | (command == "serve"), "{own}");
        assert_eq!(run_program(&["help", command]).expect(0).text(), own);
    }
    let help_of_set = run_program(&["namespaces", "set", "--help"]).expect(0).text();
    let words: Vec<&str> = help_of_set.split_whitespace().collect();
    assert!(words.join(" ").contains("Options that are not given keep their value"), "{help_of_set}");
    for code in 0..=7 {
        assert!(help.lines().any(|line| line.starts_with(&format!("  {code}  "))), "{code}\n{help}");
    }
}

#[tokio::test]
async fn settings_may_come_before_and_after_serve() {
    for words in
        [vec!["serve", "--max-batch-keys=3"], vec!["--max-batch-keys=3", "serve"], vec!["--max-batch-keys=3"]]
    {
        // The variable SIDECACHE_URL is for the client commands; it is not a setting, and not an error.
        let mut settings = Settings::embedded().set("url", "http://127.0.0.1:1");
        for word in words {
            settings = settings.argument(word);
        }
        let service = Service::start(settings);
        service.client().mget("cli", &["a", "b", "c", "d"]).await.expect_error(400, "too_many_keys");
    }
}

#[test]
fn the_settings_in_force_are_shown_without_their_secrets() {
    let folder = scratch::folder("config");
    let file = scratch::file(folder.path(), "sidecache.toml", "l1_max_mb = 5\nworkers = 1\n");
    let settings = Settings::none()
        .set(
            "redis_shards",
            "a=redis://:geheim1@h:1,b=redis-sentinel://h:2?sentinelServiceName=m&sentinelPassword=geheim2",
        )
        .set("database_url", "postgres://user:geheim3@h/db?password=geheim4")
        .argument("print-config")
        .argument("--config")
        .argument(file.display())
        .argument("--workers=2");
    for settings in [settings.clone(), settings.clone().argument("--changed"), settings.clone().argument("--json")] {
        let ran = run(&settings);
        assert!(ran.status.success(), "{}", ran.stderr);
        assert!(!ran.stdout.contains("geheim") && !ran.stderr.contains("geheim"), "{}", ran.stdout);
    }
    let document: Value = serde_json::from_str(&run(&settings.argument("--json")).stdout).expect("a document");
    let found = |name: &str| {
        let all = document["settings"].as_array().expect("a list");
        let one = all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name}"));
        (one["value"].as_str().unwrap_or_default().to_owned(), one["layer"].as_str().unwrap_or_default().to_owned())
    };
    let shown = |value: &str, layer: &str| (value.to_owned(), layer.to_owned());
    assert_eq!(found("l1_max_mb"), shown("5", "file"));
    assert_eq!(found("workers"), shown("2", "flag"));
    assert_eq!(found("listen"), shown("127.0.0.1:0", "environment"));
    assert_eq!(found("max_staleness_ms"), shown("1000", "default"));
    assert_eq!(found("database_url").0, "postgres://user:***@h/db?password=***");
}

/// The bug: `--changed` listed all settings of a file that was a copy of the defaults.
#[test]
fn regression_a_setting_equal_to_its_default_is_not_listed_as_changed() {
    let folder = scratch::folder("config");
    let defaults = include_str!("../../src/config/default.toml");
    let file = scratch::file(folder.path(), "sidecache.toml", defaults);
    let file = file.to_str().expect("a path of text");
    let changed = |more: &[&str]| {
        let words = [&["print-config", "--changed", "--json", "--config", file], more].concat();
        let document = run_program(&words).expect(0).json();
        let settings = document["settings"].as_array().expect("a list").iter();
        settings.map(|one| one["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(changed(&[]), Vec::<String>::new());
    assert_eq!(changed(&["--l1-max-mb=64", "--workers=2"]), ["workers"]);
    let other = scratch::file(folder.path(), "other.toml", &defaults.replace("l1_max_mb = 64", "l1_max_mb = 65"));
    let ran =
        run_program(&["print-config", "--changed", "--config", other.to_str().expect("a path of text")]).expect(0);
    assert_eq!(ran.text().lines().count(), 2, "{}", ran.text());
    assert!(ran.text().contains("l1_max_mb  65"), "{}", ran.text());
}

#[test]
fn a_check_of_the_settings_changes_nothing() {
    let folder = scratch::folder("config");
    let check = |settings: Settings| run(&settings.folder(folder.path()).argument("check-config"));
    let right = check(Settings::none());
    assert_eq!(right.stdout, "the settings are valid: embedded store, database sqlite\n", "{}", right.stderr);
    let json = check(Settings::none().argument("--json"));
    let json: Value = serde_json::from_str(&json.stdout).expect("a document");
    assert_eq!(
        (&json["ok"], &json["store"], &json["database"]),
        (&json!(true), &json!("embedded"), &json!("sqlite"))
    );
    assert!(json["memory"]["needed_bytes"].as_u64() < json["memory"]["available_bytes"].as_u64(), "{json}");
    for (name, value) in [("l1_max_mb", "abc"), ("listen", "nonsense"), ("l1_maxmb", "1"), ("redis_shards", "a")] {
        let wrong = check(Settings::none().set(name, value));
        let line = format!("sidecache: SIDECACHE_{}: ", name.to_uppercase());
        assert_eq!((wrong.status.code(), wrong.stdout.as_str()), (Some(2), ""));
        assert!(wrong.stderr.starts_with(&line) && wrong.stderr.lines().count() == 1, "{}", wrong.stderr);
    }
    let wrong = check(Settings::none().set("l1_max_mb", "abc").argument("--json"));
    let document: Value = serde_json::from_str(&wrong.stdout).expect("a document");
    assert_eq!((&document["ok"], &document["setting"]), (&json!(false), &json!("SIDECACHE_L1_MAX_MB")));
    // A folder cannot be created below a file.
    let file = scratch::file(folder.path(), "file", "");
    let wrong = check(Settings::none().set("database_url", format!("sqlite://{}/x/y.db", file.display())));
    assert_eq!(wrong.status.code(), Some(2), "{}", wrong.stderr);
    std::fs::remove_file(file).expect("our own file");
    assert_eq!(std::fs::read_dir(folder.path()).expect("our own folder").count(), 0, "nothing is left behind");
}

#[test]
fn a_check_with_connect_reports_shards_and_database() {
    let check = |settings: Settings| run(&settings.argument("check-config").argument("--connect"));
    let right = check(Settings::shards());
    assert!(right.status.success(), "{}{}", right.stdout, right.stderr);
    assert_eq!(right.stdout.matches(": connected").count(), 4, "{}", right.stdout);
    assert!(right.stdout.contains("migrations are pending"), "{}", right.stdout);
    let folder = scratch::folder("config");
    let sqlite = check(Settings::none().folder(folder.path()));
    assert!(sqlite.status.success() && sqlite.stdout.contains("will be created"), "{}", sqlite.stdout);
    assert_eq!(std::fs::read_dir(folder.path()).expect("our own folder").count(), 0, "nothing is left behind");
    let absent = Redis::reserved();
    let settings = Settings::shards().set("redis_shards", redis::shards(&[absent]));
    let wrong = check(settings.set("database_timeout_ms", 500).set("database_url", "postgres://x@127.0.0.1:1/x"));
    assert_eq!(wrong.status.code(), Some(3), "{}{}", wrong.stdout, wrong.stderr);
    assert!(wrong.stderr.contains("not reached: shard ") && wrong.stderr.contains("database"), "{}", wrong.stderr);
}

/// The bug: the message for a shard that refuses connections was `Os { code: 111, kind: ConnectionRefused, .. }`, and
/// for a database it was that the pool timed out.
#[test]
fn regression_an_unreachable_server_is_reported_with_a_readable_reason() {
    let settings = Settings::none()
        .set("redis_shards", redis::shards(&[Redis::reserved()]))
        .set("database_url", format!("postgres://x@127.0.0.1:{}/x", ports::free()))
        .set("database_timeout_ms", 500);
    let ran = run(&settings.argument("check-config").argument("--connect"));
    assert_eq!(ran.status.code(), Some(3), "{}{}", ran.stdout, ran.stderr);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[1], "shard a: Connection refused");
    assert!(lines[2].starts_with("database: ") && lines[2].contains("Connection refused"), "{}", lines[2]);
}

#[test]
fn migrations_are_run_once_on_both_databases() {
    let folder = scratch::folder("migrate");
    let sqlite = Settings::none().folder(folder.path());
    let postgres = Settings::none().set("database_url", postgres::shared().fresh_database());
    for (settings, kind) in [(sqlite, "sqlite"), (postgres, "postgres")] {
        let migrate = settings.set("database_timeout_ms", 10_000).argument("migrate");
        let ran = run(&migrate.clone().argument("--json"));
        let document: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stderr));
        let version = document["version"].as_u64().expect("a version");
        assert!(ran.status.success() && version >= 3, "{document}");
        assert_eq!(
            (&document["database"], &document["applied"][0]),
            (&json!(kind), &json!({"version": 1, "name": "foundation"}))
        );
        assert_eq!(document["applied"].as_array().map(Vec::len), Some(version as usize));
        let again = run(&migrate);
        assert_eq!(
            again.stdout,
            format!("the schema of {kind} is already at version {version}\n"),
            "{}",
            again.stderr
        );
    }
    assert!(folder.path().join("data/sidecache.db").is_file());
}

#[test]
fn migrate_waits_for_a_starting_database_up_to_the_given_time() {
    let mut server = Postgres::reserved();
    let settings =
        Settings::none().set("database_url", server.url("postgres")).argument("migrate").argument("--wait");
    let ran = run(&settings.clone().argument("300ms"));
    assert_eq!(ran.status.code(), Some(3), "{}", ran.stderr);
    assert!(ran.stderr.contains("within 300ms") && ran.stderr.lines().count() == 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("Connection refused"), "{}", ran.stderr);
    let waiting = thread::spawn(move || run(&settings.argument("60s")));
    server.run();
    let ran = waiting.join().expect("the command ends");
    assert!(ran.status.success() && ran.stdout.contains("applied 1 foundation"), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn completions_are_valid_scripts() {
    let folder = scratch::folder("completions");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run_program(&["completions", shell]).expect(0).text();
        for word in ["check-config", "--max-staleness-ms", "--dry-run", "--watch"] {
            assert!(script.contains(word.trim_start_matches('-')), "{word} for {shell}");
        }
        if shell == "bash" {
            let path = scratch::file(folder.path(), "completions.bash", &script);
            let checked =
                Command::new("bash").arg("-n").arg(&path).output().expect("bash is on every Debian machine");
            assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
            assert!(is_completed(&path), "bash completes `sidecache fl` to flush");
        }
    }
}

/// Whether bash, with the script, completes the beginning of a command.
fn is_completed(script: &Path) -> bool {
    let asked = format!(
        ". {} && COMP_WORDS=(sidecache fl) COMP_CWORD=1 && _sidecache sidecache fl sidecache && echo \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    let output = Command::new("bash").args(["-c", &asked]).output().expect("bash is on every Debian machine");
    String::from_utf8_lossy(&output.stdout).trim() == "flush"
}

#[tokio::test]
async fn an_address_that_is_not_a_sidecache_is_reported() {
    let service = Service::start(Settings::embedded());
    let url = format!("http://{}{}", service.address(), cache_path(&encoded("x")));
    let ran = run_program(&["cluster", "--url", &url]);
    assert!(matches!(ran.code, Some(3 | 4)), "{}", ran.err);
    assert!(ran.err.contains("--url") || ran.err.contains("older"), "{}", ran.err);
    // Addresses as a browser shows them.
    for path in ["/dashboard", "/docs", "/nothing/there"] {
        let url = format!("http://{}{path}", service.address());
        for words in [["get", "ns", "k"], ["stats", "ns", "--json"]] {
            let ran = run_program(&[&words[..], &["--url", &url]].concat());
            assert!(matches!(ran.code, Some(3 | 4)), "{}", ran.err);
            let said = format!("did you mean http://{}?", service.address());
            assert!(ran.err.contains(&said), "{}", ran.err);
        }
    }
}
