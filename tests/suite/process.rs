//! What stands around the process: variables of its surroundings, its threads, the memory that its settings may take
//! and what it is shipped with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use serde_json::Value;

use crate::support::client::namespace;
use crate::support::eventually::{SOON, eventually};
use crate::support::scratch;
use crate::support::service::{Finished, Service, Settings, run};

const MIB: u64 = 1 << 20;

/// An answer of a command with `--json`.
#[track_caller]
fn document(settings: Settings, command: &str) -> Value {
    let Finished { status, stdout, stderr } = run(&settings.argument(command).argument("--json"));
    assert!(status.success(), "{stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error} in {stdout}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn file(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// They stopped the start: `unknown setting`.
#[tokio::test]
async fn regression_variables_that_kubernetes_makes_are_ignored_with_one_line() {
    let made = [
        ("SIDECACHE_SERVICE_HOST", "10.0.0.1"),
        ("SIDECACHE_SERVICE_PORT", "80"),
        ("SIDECACHE_SERVICE_PORT_HTTP", "80"),
        ("SIDECACHE_PORT", "tcp://10.0.0.1:80"),
        ("SIDECACHE_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("SIDECACHE_PORT_80_TCP_PROTO", "tcp"),
        ("SIDECACHE_PORT_80_TCP_PORT", "80"),
        ("SIDECACHE_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("SIDECACHE_REDIS_A_SERVICE_HOST", "10.0.0.2"),
    ];
    let settings = Settings::embedded().set("log", "sidecache=debug");
    let settings = made.iter().fold(settings, |settings, (name, value)| settings.variable(name, value));
    let service = Service::start(settings);
    let log = service.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("Kubernetes")).collect();
    let [line] = lines[..] else { panic!("one line expected: {lines:#?}") };
    assert!(line.contains("DEBUG") && made.iter().all(|(name, _)| line.contains(name)), "{line}");
    // What only looks alike is still a mistyped setting.
    let Finished { status, stderr, .. } = run(&Settings::none().variable("SIDECACHE_PORT", "8080"));
    assert_eq!(status.code(), Some(2), "{stderr}");
}

/// The names of a process's threads, without their numbers, and how many have each.
fn threads(service: &Service) -> BTreeMap<String, usize> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", service.id())).expect("the service runs");
    let mut names = BTreeMap::new();
    for task in tasks.flatten() {
        let Ok(name) = std::fs::read_to_string(task.path().join("comm")) else { continue };
        let name = name.trim().trim_end_matches(|letter: char| letter == '-' || letter.is_ascii_digit());
        *names.entry(name.to_owned()).or_default() += 1;
    }
    names
}

/// The runtime for background work had a thread a core, or as many as a variable of its library said.
#[tokio::test]
async fn regression_workers_bound_the_threads_that_serve_and_the_others_are_few() {
    let mut others = Vec::new();
    for workers in [1, 4] {
        let settings = Settings::embedded().set("workers", workers).variable("TOKIO_WORKER_THREADS", 7);
        let service = Service::start(settings);
        let (cache, ns) = (service.client(), namespace("threads"));
        for number in 0..50 {
            cache.set(&ns, &format!("k{number}"), "1").await.expect(201);
            cache.fetch("/metrics").await.expect(200);
        }
        // Those that did something blocking leave.
        let mut threads = eventually(SOON, async || {
            let threads = threads(&service);
            ensure!(threads.get("background") == Some(&2), "{threads:?}");
            Ok(threads)
        })
        .await;
        assert_eq!(threads.remove("worker"), Some(workers), "{threads:?}");
        others.push(threads);
    }
    assert_eq!(others[0], others[1], "they do not grow with the workers");
    // The main thread, two in the background, the log's writer and SQLite's.
    assert!(others[0].values().sum::<usize>() <= 5, "{others:?}");
}

/// The image had its address in the environment, which goes before a mounted file.
#[test]
fn regression_a_mounted_file_beats_the_images_own_defaults() {
    let defaults = root().join("deploy/image/defaults.toml");
    let image = || Settings::none().unset("listen").variable("SIDECACHE_DEFAULTS", defaults.display());
    let listen = |settings: Settings| {
        let printed = document(settings, "print-config");
        let all = printed["settings"].as_array().expect("a list");
        all.iter().find(|one| one["name"] == "listen").map(|one| one["value"].clone()).expect("the setting")
    };
    assert_eq!(listen(image()), "0.0.0.0:8080");
    let folder = scratch::folder("mounted");
    let mounted = scratch::file(folder.path(), "sidecache.toml", "listen = \"127.0.0.1:9090\"\n");
    assert_eq!(listen(image().set("config", mounted.display())), "127.0.0.1:9090");
    assert_eq!(listen(image().set("listen", "127.0.0.1:9191")), "127.0.0.1:9191");

    let dockerfile = file("Dockerfile");
    let variables: Vec<&str> = dockerfile.lines().filter_map(|line| line.strip_prefix("ENV ")).collect();
    assert_eq!(variables, ["SIDECACHE_DEFAULTS=/usr/share/sidecache/defaults.toml"]);
    assert!(dockerfile.contains("COPY deploy/image/defaults.toml /usr/share/sidecache/defaults.toml"));
    assert!(file(".dockerignore").lines().any(|line| line == "!deploy/image"));
}

/// Nothing added them up: the process was ended when it took what it had been allowed.
#[tokio::test]
async fn regression_settings_that_may_take_more_memory_than_there_is_are_told() {
    let memory = &document(Settings::none(), "check-config")["memory"];
    let available = memory["available_bytes"].as_u64().expect("this system tells");
    // Each fits, and all together do not.
    let part = available / MIB * 2 / 5;
    let much = |settings: Settings| {
        settings.set("embedded_max_mb", part).set("max_bodies_mb", part).set("max_answers_mb", part)
    };
    let checked = document(much(Settings::none()), "check-config");
    assert_eq!(checked["ok"], true);
    let warning = checked["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("may take") && warning.contains(&format!("embedded_max_mb {part} MiB")), "{warning}");
    let shown = run(&much(Settings::none()).argument("check-config"));
    assert!(shown.status.success() && shown.stdout.contains("warning: the settings may take"), "{}", shown.stdout);
    let service = Service::start(much(Settings::embedded()));
    assert!(service.log().contains("the settings may take"), "{}", service.log());
}

/// What is written with `Mi`, `m`, `M` or `MiB`.
fn mebibytes(text: &str) -> u64 {
    let digits = text.trim().trim_end_matches(char::is_alphabetic);
    digits.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The value behind the last `name` in front of which stands `after`.
fn field<'t>(text: &'t str, after: &str, name: &str) -> &'t str {
    let rest = text.split_once(after).unwrap_or_else(|| panic!("no {after}")).1;
    let value = rest.lines().find_map(|line| line.trim().trim_start_matches('#').strip_prefix(name));
    value.unwrap_or_else(|| panic!("no {name} behind {after}")).trim()
}

/// They gave 512 and 256 MiB to settings that might take 1,200 and 900.
#[test]
fn regression_what_is_shipped_fits_into_the_memory_that_it_is_given() {
    let shards = "a=redis://h:1,b=redis://h:2,c=redis://h:3";
    let lines = |text: &str, separator: &str| -> Vec<(String, String)> {
        let pairs = text.lines().filter_map(|line| line.trim().split_once(separator));
        pairs
            .filter(|(name, _)| name.starts_with("SIDECACHE_"))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect()
    };
    let compose = file("docker-compose.yml");
    let of_compose = compose.split_once("x-sidecache:").expect("the service").1;
    let of_compose = of_compose.split_once("x-redis:").expect("the next part").0;
    let service = file("deploy/kubernetes/service/deployment.yaml");
    let sidecar = file("deploy/kubernetes/sidecar/deployment.yaml");
    let unit = file("deploy/systemd/sidecache.service");
    for (place, settings, limit) in [
        ("docker-compose.yml", lines(of_compose, ": "), field(of_compose, "", "mem_limit:")),
        (
            "deploy/kubernetes/service",
            lines(&file("deploy/kubernetes/service/settings.env"), "="),
            field(&service, "limits:", "memory:"),
        ),
        (
            "deploy/kubernetes/sidecar",
            lines(&file("deploy/kubernetes/sidecar/settings.env"), "="),
            field(&sidecar, "limits:", "memory:"),
        ),
        ("deploy/systemd", Vec::new(), field(&unit, "[Service]", "MemoryMax=")),
    ] {
        let limit = mebibytes(limit) * MIB;
        let given = settings
            .iter()
            .filter(|(name, _)| !["SIDECACHE_REDIS_SHARDS", "SIDECACHE_DATABASE_URL"].contains(&name.as_str()))
            .fold(Settings::none(), |settings, (name, value)| settings.variable(name, value));
        let given = if place == "deploy/systemd" { given } else { given.set("redis_shards", shards) };
        let need = document(given, "check-config")["memory"]["needed_bytes"].as_u64().expect("a sum");
        assert!(need <= limit, "{place}: {} MiB may be taken of {} MiB", need / MIB, limit / MIB);
        assert!(settings.len() > 3 || place == "deploy/systemd", "{place}: its settings are read: {settings:?}");
    }
}
