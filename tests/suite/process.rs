//! The process and its environment: environment variables, threads, the memory that the settings allow, and the files
//! that are shipped with the service.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use serde_json::Value;

use crate::support::client::namespace;
use crate::support::eventually::{SOON, eventually};
use crate::support::scratch;
use crate::support::service::{Finished, Service, Settings, run};

const MIB: u64 = 1 << 20;

/// The output of a command with `--json`.
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

/// The bug: these variables stopped the start with `unknown setting`.
#[tokio::test]
async fn regression_variables_that_kubernetes_sets_are_ignored_with_one_log_line() {
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
    // A variable that only resembles them is still a mistyped setting.
    let Finished { status, stderr, .. } = run(&Settings::none().variable("SIDECACHE_PORT", "8080"));
    assert_eq!(status.code(), Some(2), "{stderr}");
}

/// The number of threads of a process by name, with the numbers in the names removed.
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

/// The bug: the runtime for background work had one thread per core, or as many as `TOKIO_WORKER_THREADS` said.
#[tokio::test]
async fn regression_workers_limits_serving_threads_and_background_threads_are_few() {
    let mut others = Vec::new();
    for workers in [1, 4] {
        let settings = Settings::embedded().set("workers", workers).variable("TOKIO_WORKER_THREADS", 7);
        let service = Service::start(settings);
        let (cache, ns) = (service.client(), namespace("threads"));
        for number in 0..50 {
            cache.set(&ns, &format!("k{number}"), "1").await.expect(201);
            cache.fetch("/metrics").await.expect(200);
        }
        // Threads for blocking work end when they are idle.
        let mut threads = eventually(SOON, async || {
            let threads = threads(&service);
            ensure!(threads.get("background") == Some(&2), "{threads:?}");
            Ok(threads)
        })
        .await;
        assert_eq!(threads.remove("worker"), Some(workers), "{threads:?}");
        others.push(threads);
    }
    assert_eq!(others[0], others[1], "the other threads do not grow with the workers");
    // The main thread, two background threads, the log writer and the SQLite thread.
    assert!(others[0].values().sum::<usize>() <= 5, "{others:?}");
}

/// The bug: the image set its address in the environment, which overrides a mounted file.
#[test]
fn regression_a_mounted_file_overrides_the_images_defaults() {
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

/// The bug: nothing added up the memory limits in the settings, so the process could be killed although it stayed
/// within all of them.
#[tokio::test]
async fn regression_settings_that_exceed_the_available_memory_get_a_warning() {
    let memory = &document(Settings::none(), "check-config")["memory"];
    let available = memory["available_bytes"].as_u64().expect("this system reports its memory");
    // Each limit fits, but their sum does not.
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

/// A number with the unit `Mi`, `m`, `M` or `MiB`, in MiB.
fn mebibytes(text: &str) -> u64 {
    let digits = text.trim().trim_end_matches(char::is_alphabetic);
    digits.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The value after the first `name` that follows `after`.
fn field<'t>(text: &'t str, after: &str, name: &str) -> &'t str {
    let rest = text.split_once(after).unwrap_or_else(|| panic!("no {after}")).1;
    let value = rest.lines().find_map(|line| line.trim().trim_start_matches('#').strip_prefix(name));
    value.unwrap_or_else(|| panic!("no {name} after {after}")).trim()
}

/// The bug: the files gave 512 and 256 MiB to settings that might use 1,200 and 900.
#[test]
fn regression_the_shipped_settings_fit_into_their_memory_limits() {
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
        assert!(need <= limit, "{place}: the settings may use {} MiB, the limit is {} MiB", need / MIB, limit / MIB);
        assert!(
            settings.len() > 3 || place == "deploy/systemd",
            "{place}: too few settings were found: {settings:?}"
        );
    }
}
