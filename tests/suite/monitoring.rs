//! What operators use: the metrics as promtool reads them, the rules of `prometheus/` and the dashboard of
//! `grafana/`. These, the documents and the service must agree.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::both_stores::on_both_stores;
use crate::support::client::{Client, namespace};
use crate::support::eventually::{LATER, eventually};
use crate::support::process::{self, Signal};
use crate::support::service::{Service, Store};

on_both_stores! {
    promtool_accepts_the_metrics,
}

const DASHBOARD: &str = "grafana/dashboards/sidecache.json";
const ALERTS: &str = "prometheus/rules/alerts.yml";
const RECORDINGS: &str = "prometheus/rules/recording.yml";
const OPERATIONS: &str = "docs/OPERATIONS.md";

async fn promtool_accepts_the_metrics(service: &Service) {
    let (cache, ns) = (service.client(), namespace("monitoring"));
    run_every_operation(&cache, &ns).await;
    // The metrics of namespaces are updated in intervals.
    let text = eventually(LATER, async || {
        let text = cache.fetch("/metrics").await.expect(200).text().to_owned();
        ensure!(text.contains("sidecache_namespace_keys{"), "no namespace has metrics yet");
        Ok(text)
    })
    .await;
    let mut command = promtool(&["check", "metrics"]);
    let mut checking = command.stdin(Stdio::piped()).spawn().expect("promtool runs");
    let mut input = checking.stdin.take().expect("its input is a pipe");
    input.write_all(text.as_bytes()).expect("promtool reads its input");
    drop(input);
    let output = checking.wait_with_output().expect("promtool ends");
    // promtool prints a warning about metrics that are valid but violate a convention.
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{}", shown(&output));
}

/// Performs every operation, with most of its results.
async fn run_every_operation(cache: &Client, ns: &str) {
    cache.set(ns, "k", "1").await.expect(201);
    cache.get(ns, "k").await.expect(200);
    cache.get(ns, "absent").await.expect(404);
    cache.head(ns, "k").await.expect(200);
    cache.mget(ns, &["k", "absent"]).await.expect(200);
    cache.mset(ns, &json!([{"key": "a", "value": 1}, {"key": "b", "value": 2}])).await.expect(200);
    cache.list(ns, &[]).await.expect(200);
    cache.stats(ns).await.expect(200);
    cache.delete(ns, "a").await.expect(200);
    cache.delete(ns, "absent").await.expect(404);
    cache.flush(ns, &[("pattern", "b")]).await.expect(200);
}

#[test]
fn the_rules_are_valid_and_fire_as_expected() {
    for words in [
        ["check", "config", "prometheus/prometheus.yml"],
        ["check", "rules", ALERTS],
        ["check", "rules", RECORDINGS],
        ["test", "rules", "prometheus/tests/alerts.yml"],
    ] {
        let output = promtool(&words).stdin(Stdio::null()).output().expect("promtool runs");
        assert!(output.status.success(), "promtool {}: {}", words.join(" "), shown(&output));
    }
}

#[tokio::test]
async fn every_metric_in_dashboards_rules_and_documents_exists() {
    let service = Store::Shards.shared_service();
    let (cache, ns) = (service.client(), namespace("monitoring"));
    run_every_operation(&cache, &ns).await;
    let recordings: BTreeSet<String> =
        lines_after(&file(RECORDINGS), "- record:").into_iter().map(str::to_owned).collect();
    let wanted: Vec<(&str, String)> = [
        (DASHBOARD, queries(&dashboard()).join("\n")),
        (ALERTS, without_comments(&file(ALERTS))),
        (RECORDINGS, without_comments(&file(RECORDINGS))),
        ("prometheus/tests/alerts.yml", without_comments(&file("prometheus/tests/alerts.yml"))),
        (OPERATIONS, file(OPERATIONS)),
    ]
    .into_iter()
    .flat_map(|(place, text)| metric_names(&text).into_iter().map(move |name| (place, name)))
    .collect();
    assert!(wanted.len() > 100, "only {} names were found", wanted.len());
    eventually(LATER, async || {
        let metrics = cache.metrics().await;
        let known: BTreeSet<&str> = metrics.samples().iter().map(|sample| sample.name.as_str()).collect();
        for (place, name) in &wanted {
            let family = format!("{name}_bucket");
            let exists = match name.contains(':') {
                true => recordings.contains(name),
                false => known.contains(name.as_str()) || known.contains(family.as_str()),
            };
            ensure!(exists, "{place} mentions {name}, which does not exist");
        }
        let described = metric_names(&file(OPERATIONS));
        for name in known.iter().filter(|name| name.starts_with("sidecache_")) {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let is_there = described.contains(*name) || family.is_some_and(|family| described.contains(family));
            ensure!(is_there, "{OPERATIONS} does not mention {name}");
        }
        Ok(())
    })
    .await;
}

#[test]
fn every_alert_has_its_section_in_the_runbook() {
    let (alerts, operations) = (file(ALERTS), file(OPERATIONS));
    let runbook = operations.split_once("\n## Runbook\n").expect("the runbook is the last chapter").1;
    let (names, links) = (lines_after(&alerts, "- alert:"), lines_after(&alerts, "runbook:"));
    assert_eq!(names.len(), links.len(), "every alert has a runbook");
    for (name, link) in names.into_iter().zip(links) {
        let anchor = link.strip_prefix("docs/OPERATIONS.md#").unwrap_or_else(|| panic!("{name}: {link}"));
        let section = runbook.split("\n### ").skip(1).find(|section| anchor_of(first_line(section)) == anchor);
        let section = section.unwrap_or_else(|| panic!("{name}: the runbook has no {anchor}"));
        let names_it =
            section.lines().nth(2).is_some_and(|line| line.trim_matches('*').split(", ").any(|n| n == name));
        assert!(names_it, "{anchor} does not name {name} below its heading");
    }
}

#[test]
fn every_panel_explains_itself() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "sidecache");
    let panels = dashboard["panels"].as_array().expect("there are panels");
    let mut ids = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("every panel has a title");
        assert!(ids.insert(panel["id"].as_u64()), "{title}: another panel has the same id");
        assert!(panel.get("libraryPanel").is_none(), "{title}: a library panel exists in only one Grafana");
        if panel["type"] == "row" {
            continue;
        }
        let unit = &panel["fieldConfig"]["defaults"]["unit"];
        assert!(unit.is_string() || panel["type"] == "heatmap", "{title} has no unit");
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title} has no description");
        for target in panel["targets"].as_array().expect("every panel has queries") {
            let expr = target["expr"].as_str().expect("every target is an expression");
            // The query filters by job, so that two fleets on one Prometheus are not mixed up.
            assert!(expr.contains("job=\"$job\"") || expr.starts_with("ALERTS{"), "{title}: {expr}");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    assert!(ids.len() > 40);
}

/// promtool, run in the project's root folder.
fn promtool(words: &[&str]) -> Command {
    let mut command = process::dying_with_us(&process::program_named("promtool", "prometheus"), Signal::Kill);
    command.args(words).current_dir(root()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn shown(output: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{stdout}\n{stderr}", output.status)
}

fn file(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn dashboard() -> Value {
    serde_json::from_str(&file(DASHBOARD)).expect("the dashboard is JSON")
}

/// All Prometheus queries in the dashboard: of panels, variables and annotations.
fn queries(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match value {
                Value::String(text) if ["expr", "query", "definition"].contains(&name.as_str()) => vec![text.clone()],
                other => queries(other),
            })
            .collect(),
        Value::Array(values) => values.iter().flat_map(queries).collect(),
        _ => Vec::new(),
    }
}

/// The rest of each line that begins with these words.
fn lines_after<'t>(text: &'t str, words: &str) -> Vec<&'t str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(words)).map(str::trim).collect()
}

fn without_comments(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    lines.join("\n")
}

/// The names of metrics and recorded series of this service and its process.
fn metric_names(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    let words = text.split(|letter| !is_part(letter)).map(|word| word.trim_matches(':'));
    let ours = |word: &str| {
        let name = word.split_once(':').map_or(word, |(_, rest)| rest);
        ["sidecache_", "process_"].iter().any(|prefix| name.len() > prefix.len() && name.starts_with(prefix))
    };
    words.filter(|word| ours(word)).map(str::to_owned).collect()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The anchor of a heading.
fn anchor_of(heading: &str) -> String {
    heading.to_lowercase().replace(' ', "-")
}
