//! The cache-aside programs of docs/CLIENTS.md against the real service: the programs cache values, and a service
//! that is gone, silent or slow costs them no more than their timeout.
//!
//! Each program reads lines from its standard input and answers each with one line: `read KEY` with `cache VALUE`,
//! `source VALUE` or `error: ...`, `change KEY VALUE` with `changed`. The source is a table in the program. The
//! programs in Go and TypeScript use the same lines; these tests do not run them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use reqwest::Method;
use tempfile::TempDir;

use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{LATER, eventually};
use crate::support::process::{self, Process, Signal};
use crate::support::service::{Service, Settings};
use crate::support::{ports, scratch};

/// How long a program may take to answer. A program waits for the service for less than 3 s; the rest is for a busy
/// machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A key with characters that have a meaning in a path.
const ODD_KEY: &str = "a/b%2F?c=ü&d#e+\"f\"";

#[derive(Clone, Copy)]
enum Language {
    Curl,
    Python,
    Rust,
}

/// A running program.
struct Program {
    input: ChildStdin,
    answers: Receiver<String>,
    _process: Process,
    folder: TempDir,
}

impl Program {
    fn start(language: Language, service: SocketAddr, namespace: &str) -> Program {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/clients");
        let (program, argument) = match language {
            Language::Curl => {
                process::program_named("curl", "curl");
                (process::program_named("sh", "dash"), Some(sources.join("cache_aside.sh")))
            }
            Language::Python => (process::program_named("python3", "python3"), Some(sources.join("cache_aside.py"))),
            Language::Rust => {
                let folder = Path::new(env!("CARGO_BIN_EXE_sidecache")).parent().expect("a binary lies in a folder");
                let path = folder.join("examples/cache_aside");
                assert!(path.is_file(), "{} is not built: `cargo build --example cache_aside`", path.display());
                (path, None)
            }
        };
        let folder = scratch::folder("client");
        let mut command = process::dying_with_us(&program, Signal::Kill);
        command
            .args(argument)
            .args([&service.to_string(), namespace])
            // A program that used this proxy would fail: programs must connect to the service directly.
            .env("http_proxy", "http://127.0.0.1:9")
            .env("TMPDIR", folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.path().join("stderr")).expect("a temporary file can be made"));
        let mut process = Process::spawn(command, Signal::Kill);
        let input = process.child().stdin.take().expect("stdin is piped");
        let output = process.child().stdout.take().expect("stdout is piped");
        let (lines, answers) = mpsc::channel();
        thread::spawn(move || {
            // The receiver is gone when the test has ended.
            BufReader::new(output).lines().map_while(Result::ok).for_each(|line| drop(lines.send(line)));
        });
        Program { input, answers, _process: process, folder }
    }

    /// The answer to a line.
    fn answer(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").expect("the program reads");
        self.answers.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            let said = std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default();
            panic!("no answer to {line:?}: {error}; the program said:\n{said}")
        })
    }

    fn read(&mut self, key: &str) -> String {
        self.answer(&format!("read {key}"))
    }

    fn change(&mut self, key: &str, value: &str) -> String {
        self.answer(&format!("change {key} {value}"))
    }

    /// Reads until the cache answers with the value. On a busy machine, a program may run into its timeout first.
    async fn reads_from_the_cache(&mut self, key: &str, value: &str) {
        let expected = format!("cache {value}");
        eventually(LATER, async || {
            let answer = self.read(key);
            ensure!(answer == expected, "{answer}");
            Ok(())
        })
        .await;
    }

    /// Changes the source until the program could also delete the entry in the cache.
    async fn changes(&mut self, key: &str, value: &str) {
        eventually(LATER, async || {
            let answer = self.change(key, value);
            ensure!(answer == "changed", "{answer}");
            Ok(())
        })
        .await;
    }
}

/// Makes a test per language of every body named: `async fn body(language: Language)`.
macro_rules! in_every_language {
    ($($body:ident),+ $(,)?) => {
        mod curl {
            $(#[tokio::test] async fn $body() { super::$body(super::Language::Curl).await; })+
        }
        mod python {
            $(#[tokio::test] async fn $body() { super::$body(super::Language::Python).await; })+
        }
        mod rust {
            $(#[tokio::test] async fn $body() { super::$body(super::Language::Rust).await; })+
        }
    };
}

in_every_language!(
    a_miss_fills_the_cache_and_a_change_empties_it,
    fills_expire_with_the_jitter_of_the_policy,
    one_program_loads_and_the_others_wait_for_its_value,
    a_value_is_not_stored_while_another_program_has_the_lease,
    reads_work_without_the_service_and_are_cached_again_when_it_is_back,
    a_stopped_service_costs_no_more_than_the_timeout,
    a_service_that_answers_byte_by_byte_costs_no_more_than_the_timeout,
    answers_of_another_server_are_not_used,
);

fn service_on(port: u16) -> Service {
    Service::start(Settings::embedded().set("listen", format!("127.0.0.1:{port}")))
}

async fn a_miss_fills_the_cache_and_a_change_empties_it(language: Language) {
    let service = Service::start(Settings::embedded());
    let (cache, namespace) = (service.client(), namespace("clients"));
    let mut program = Program::start(language, service.address(), &namespace);

    for key in ["mug", ODD_KEY] {
        program.changes(key, r#"{"name":"Mug"}"#).await;
        let read = program.read(key);
        assert!(read.starts_with("source {"), "{read}");
        // Each program puts its own spaces into JSON.
        let shown = read.trim_start_matches("source ").to_owned();
        program.reads_from_the_cache(key, &shown).await;
        let stored = cache.get(&namespace, key).await.expect(200).json();
        assert_eq!(stored["value"], serde_json::json!({"name": "Mug"}));

        program.changes(key, "[1,\"ü\"]").await;
        cache.get(&namespace, key).await.expect_error(404, "key_not_found");
        let read = program.read(key);
        assert!(read.starts_with("source [1,"), "{read}");
    }

    // An error is not cached, and its lease is given up.
    assert!(program.read("nothing").starts_with("error"), "the source has no such key");
    cache.get(&namespace, "nothing").await.expect_error(404, "key_not_found");
    lease_of(&cache, &namespace, "nothing").await;
}

/// Takes the lease on a key, and returns its token.
async fn lease_of(cache: &Client, namespace: &str, key: &str) -> String {
    let answer = cache.get_with(namespace, key, &[("prefer", "lease=60")]).await.expect(404);
    let lease = answer.header("cache-lease").unwrap_or_default();
    let token = lease.strip_prefix("won;token=\"").and_then(|rest| rest.split('"').next());
    token.unwrap_or_else(|| panic!("no lease was given: {lease:?}")).to_owned()
}

async fn one_program_loads_and_the_others_wait_for_its_value(language: Language) {
    let service = Service::start(Settings::embedded());
    let (cache, namespace) = (service.client(), namespace("clients"));
    let mut program = Program::start(language, service.address(), &namespace);
    program.changes("mug", "1").await;
    let token = lease_of(&cache, &namespace, "mug").await;
    writeln!(program.input, "read mug").expect("the program reads");
    // The program waits: its first question is answered with `held`, its second one is not answered yet.
    eventually(LATER, async || {
        let held = cache.metrics().await.total_with("sidecache_leases_total", &[("outcome", "held")]);
        ensure!(held >= 1.0, "the program did not ask for a lease");
        Ok(())
    })
    .await;
    let body = br#"{"value": 7}"#.to_vec();
    let path = key_path(&namespace, "mug");
    cache.send(Method::PUT, &path, &[("cache-lease", token.as_str())], Some(body)).await.expect(201);
    // On a busy machine, the program may run into its timeout first.
    let read = program.answers.recv_timeout(PATIENCE).expect("the program answers");
    assert!(read == "cache 7" || read == "source 1", "{read}");
    program.reads_from_the_cache("mug", "7").await;
}

async fn a_value_is_not_stored_while_another_program_has_the_lease(language: Language) {
    let service = Service::start(Settings::embedded());
    let (cache, namespace) = (service.client(), namespace("clients"));
    let mut program = Program::start(language, service.address(), &namespace);
    program.changes("mug", "1").await;
    lease_of(&cache, &namespace, "mug").await;
    assert_eq!(program.read("mug"), "source 1");
    cache.get(&namespace, "mug").await.expect_error(404, "key_not_found");
    // A change ends the lease of the other program.
    program.changes("mug", "2").await;
    program.reads_from_the_cache("mug", "2").await;
}

async fn fills_expire_with_the_jitter_of_the_policy(language: Language) {
    let service = Service::start(Settings::embedded());
    let (cache, namespace) = (service.client(), namespace("clients"));
    cache.put_policy(&namespace, r#"{"ttl_jitter":0.1}"#).await.expect(201);
    let mut program = Program::start(language, service.address(), &namespace);
    let mut lifetimes = BTreeSet::new();
    for number in 0..12 {
        let key = format!("key_{number}");
        program.changes(&key, "1").await;
        program.reads_from_the_cache(&key, "1").await;
        let metadata = cache.get(&namespace, &key).await.expect(200).metadata();
        let left = metadata.ttl_remaining.expect("a fill has a TTL");
        // 300 s less up to 10 %, minus the time since.
        assert!((210..=300).contains(&left), "{left} s");
        lifetimes.insert(left);
    }
    assert!(lifetimes.len() > 3, "no jitter: {lifetimes:?}");
}

async fn reads_work_without_the_service_and_are_cached_again_when_it_is_back(language: Language) {
    let port = ports::free();
    let mut service = service_on(port);
    let mut program = Program::start(language, service.address(), &namespace("clients"));
    program.changes("mug", "1").await;
    program.reads_from_the_cache("mug", "1").await;

    service.kill();
    assert_eq!(program.read("mug"), "source 1");
    assert_eq!(program.change("mug", "2"), "changed, and the cache does not know");
    assert_eq!(program.read("mug"), "source 2");

    let _service = service_on(port);
    program.reads_from_the_cache("mug", "2").await;
}

async fn a_stopped_service_costs_no_more_than_the_timeout(language: Language) {
    let service = service_on(ports::free());
    let mut program = Program::start(language, service.address(), &namespace("clients"));
    program.changes("mug", "1").await;
    program.reads_from_the_cache("mug", "1").await;

    // The kernel still accepts connections.
    service.signal(Signal::Stop);
    assert_eq!(program.read("mug"), "source 1");
    assert_eq!(program.change("mug", "2"), "changed, and the cache does not know");
    assert_eq!(program.read("mug"), "source 2");

    service.signal(Signal::Cont);
    program.changes("mug", "3").await;
    program.reads_from_the_cache("mug", "3").await;
}

async fn a_service_that_answers_byte_by_byte_costs_no_more_than_the_timeout(language: Language) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    let address = listener.local_addr().expect("a listener has an address");
    thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || drip(connection));
        }
    });
    let mut program = Program::start(language, address, "slow");
    assert_eq!(program.change("mug", "1"), "changed, and the cache does not know");
    assert_eq!(program.read("mug"), "source 1");
}

/// Sends the head of an answer, one byte every 100 ms, so that no single read takes long.
fn drip(mut connection: TcpStream) {
    let filler = std::iter::repeat_n("x-filler: 0123456789\r\n", 100).flat_map(str::bytes);
    for byte in "HTTP/1.1 200 OK\r\n".bytes().chain(filler) {
        if connection.write_all(&[byte]).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

async fn answers_of_another_server_are_not_used(language: Language) {
    let (methods, seen) = mpsc::channel();
    let strange = |answer: &'static str| {
        let methods = methods.clone();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
        let address = listener.local_addr().expect("a listener has an address");
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                answer_once(&connection, answer, &methods);
            }
        });
        address
    };

    let mut lost =
        Program::start(language, strange("404 Not Found\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno"), "n");
    assert_eq!(lost.change("mug", "1"), "changed, and the cache does not know");
    assert_eq!(lost.read("mug"), "source 1");

    let mut fooled =
        Program::start(language, strange("200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\ntrue"), "n");
    fooled.change("mug", "1");
    assert_eq!(fooled.read("mug"), "source 1");

    let seen: BTreeSet<String> = seen.try_iter().collect();
    assert_eq!(seen, BTreeSet::from(["DELETE", "GET"].map(str::to_owned)), "something was stored");
}

/// Answers one request without a body, and sends its method to the test.
fn answer_once(mut connection: &TcpStream, answer: &str, methods: &Sender<String>) {
    let mut head = BufReader::new(connection).lines().map_while(Result::ok);
    let method = head.next().and_then(|line| Some(line.split_once(' ')?.0.to_owned()));
    head.take_while(|line| !line.is_empty()).for_each(drop);
    // The program or the test may have ended.
    let _ = method.map(|method| methods.send(method));
    let _ = write!(connection, "HTTP/1.1 {answer}");
}

#[test]
fn the_document_contains_the_tested_programs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text =
        |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let document = text("docs/CLIENTS.md");
    for (language, ending) in [("sh", "sh"), ("python", "py"), ("ts", "ts"), ("go", "go"), ("rust", "rs")] {
        let path = format!("examples/clients/cache_aside.{ending}");
        let block = format!("```{language}\n{}```\n", text(&path));
        assert!(document.contains(&block), "docs/CLIENTS.md does not show {path} as it is");
    }
}
