//! Flushes that take longer than their requests and continue as jobs: any instance can show and cancel a job, and
//! each job leaves one row in the audit trail, whatever happens to its client, its instance and the database.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::answer::Answer;
use crate::support::both_stores::on_both_stores;
use crate::support::client::{Client, cache_path, namespace};
use crate::support::database::{self, Database};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::postgres::Postgres;
use crate::support::process::{self, Process, Signal};
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};
use crate::support::slow_shard::{ENTRIES, SlowShard};

on_both_stores! {
    a_flush_with_respond_async_becomes_a_job,
    regression_a_job_that_marks_says_how_many_it_marked,
    a_job_shows_its_selection,
    an_unknown_job_is_a_404,
}

/// How long a job of a lost instance may take to fail. An instance counts as lost after 15 s of silence, and the
/// instance that notices it must have watched for as long.
const INSTANCE_LOST: Duration = Duration::from_secs(60);

async fn flush_async(cache: &Client, ns: &str) -> Answer {
    cache.send(Method::DELETE, &cache_path(ns), &[("prefer", "respond-async")], None).await
}

/// The path of the job, from a 202.
#[track_caller]
fn job_path(answer: Answer) -> String {
    let answer = answer.expect(202);
    let location = answer.header("location").expect("a 202 says where the job is").to_owned();
    assert_eq!(location, format!("/api/v1/jobs/{}", answer.json()["id"].as_str().expect("a job has an id")));
    location
}

/// Waits until a job is in `state`, and returns it.
async fn in_state(cache: &Client, job_path: &str, state: &str, limit: Duration) -> Value {
    eventually(limit, async || {
        let job = cache.fetch(job_path).await.expect(200).json();
        ensure!(job["state"] == state, "{job}");
        Ok(job)
    })
    .await
}

/// The only row about `ns` in the audit trail: the number of deleted entries, and whether the flush was complete.
async fn audited(cache: &Client, ns: &str) -> (u64, bool) {
    eventually(SOON, async || {
        let page = cache.audit(ns, &[]).await.expect(200).json();
        let rows = page["audit"].as_array().expect("a list of rows").clone();
        ensure!(!rows.is_empty(), "no row yet");
        assert_eq!(rows.len(), 1, "{page}");
        assert_eq!((&rows[0]["action"], &rows[0]["client"]), (&json!("flush"), &json!("127.0.0.1")));
        Ok((rows[0]["deleted_count"].as_u64().expect("a number"), rows[0]["complete"] == true))
    })
    .await
}

async fn stored(cache: &Client, ns: &str) -> u64 {
    cache.stats(ns).await.expect(200).number("total_keys")
}

async fn a_flush_with_respond_async_becomes_a_job(service: &Service) {
    let (cache, ns) = (service.client(), namespace("jobs"));
    cache.fill(&ns, &json!([{"key": "a", "value": 1}, {"key": "b", "value": 1}, {"key": "c", "value": 1}])).await;
    let before = cache.metrics().await.total("sidecache_jobs_done_total");
    let answer = flush_async(&cache, &ns).await;
    assert_eq!(answer.header("preference-applied"), Some("respond-async"));
    let job_path = job_path(answer);
    let job = in_state(&cache, &job_path, "done", SOON).await;
    assert_eq!(job["result"], json!({"success": true, "deleted_count": 3}));
    assert_eq!((&job["kind"], &job["namespace"]), (&json!("flush"), &json!(ns)));
    assert_eq!((&job["done"], &job["estimate"]), (&json!(3), &json!(3)));
    for field in ["started_at", "ended_at"] {
        humantime::parse_rfc3339(job[field].as_str().expect("a time is text")).expect("RFC 3339");
    }
    assert_eq!(cache.all_keys(&ns).await, Vec::<String>::new());
    assert_eq!(audited(&cache, &ns).await, (3, true));
    assert!(cache.metrics().await.total("sidecache_jobs_done_total") > before);
    let listed = cache.fetch("/api/v1/jobs").await.expect(200).json();
    assert!(listed["jobs"].as_array().expect("a list").contains(&job), "{listed}");
    // Cancelling a job that has ended changes nothing.
    assert_eq!(cache.send(Method::DELETE, &job_path, &[], None).await.expect(200).json(), job);
}

async fn a_job_shows_its_selection(service: &Service) {
    let (cache, ns) = (service.client(), namespace("jobs"));
    cache.fill(&ns, &json!([{"key": "a1", "value": 1}, {"key": "b", "value": 1, "tags": ["t"]}])).await;
    for (query, pattern, tag) in [("pattern=a*", json!("a*"), json!(null)), ("tag=t", json!(null), json!("t"))] {
        let path = format!("{}?{query}", cache_path(&ns));
        let answer = cache.send(Method::DELETE, &path, &[("prefer", "wait=5, respond-async")], None).await;
        let job = in_state(&cache, &job_path(answer), "done", SOON).await;
        assert_eq!((&job["pattern"], &job["tag"], &job["done"]), (&pattern, &tag, &json!(1)));
    }
}

async fn an_unknown_job_is_a_404(service: &Service) {
    let cache = service.client();
    for id in ["0f31c8f1b2a49d77-000001", "x", "UPPER", "a%20b", "%FF", &"a".repeat(300)] {
        let path = format!("/api/v1/jobs/{id}");
        cache.fetch(&path).await.expect_error(404, "job_not_found");
        cache.send(Method::DELETE, &path, &[], None).await.expect_error(404, "job_not_found");
    }
    cache.fetch("/api/v1/jobs?limit=1").await.expect_error(400, "invalid_query");
}

#[tokio::test]
async fn a_flush_that_ends_within_its_request_leaves_no_job() {
    for (service, database) in database::both(|settings| settings) {
        let (cache, ns) = (service.client(), namespace("jobs"));
        cache.set(&ns, "k", "1").await.expect(201);
        cache.flush(&ns, &[]).await.expect_json(200, &json!({"success": true, "deleted_count": 1}));
        assert_eq!(audited(&cache, &ns).await, (1, true));
        assert_eq!(database.count("cache_jobs").await.expect("the table"), 0);
        cache.fetch("/api/v1/jobs").await.expect_json(200, &json!({"jobs": []}));
    }
}

/// The bug: deleting a namespace of many entries ended as `outcome_unknown`, and its policy stayed.
#[tokio::test]
async fn regression_deleting_a_large_namespace_continues_as_a_job() {
    let shard = SlowShard::very_slow();
    for (settings, _database) in database::both_settings() {
        let service = Service::start(shard.impatient(settings));
        let (cache, ns) = (service.client(), namespace("jobs"));
        let policy = format!("/api/v1/namespaces/{ns}");
        shard.fill(&cache, &ns).await;
        let job_path = job_path(cache.send(Method::DELETE, &policy, &[], None).await);
        cache.fetch(&policy).await.expect(200);
        shard.speed_up();
        let job = in_state(&cache, &job_path, "done", LATER).await;
        assert_eq!((&job["kind"], &job["done"]), (&json!("delete_namespace"), &json!(ENTRIES)));
        cache.fetch(&policy).await.expect_error(404, "namespace_not_found");
        assert_eq!(stored(&cache, &ns).await, 0);
        let rows = cache.audit(&ns, &[]).await.expect(200).json()["audit"].clone();
        let rows: Vec<(&Value, &Value)> = rows
            .as_array()
            .expect("a list of rows")
            .iter()
            .map(|row| (&row["action"], &row["deleted_count"]))
            .collect();
        assert_eq!(rows, [(&json!("policy_deleted"), &json!(ENTRIES))], "one row, about the policy");
    }
}

/// A cancelled job keeps the policy, and its row has the number of deleted entries.
#[tokio::test]
async fn a_cancelled_deletion_of_a_namespace_keeps_its_policy() {
    let shard = SlowShard::very_slow();
    let service = Service::start(shard.impatient(Settings::embedded()));
    let (cache, ns) = (service.client(), namespace("jobs"));
    let policy = format!("/api/v1/namespaces/{ns}");
    shard.fill(&cache, &ns).await;
    let job_path = job_path(cache.send(Method::DELETE, &policy, &[("prefer", "respond-async")], None).await);
    cache.send(Method::DELETE, &job_path, &[], None).await.expect(200);
    let job = in_state(&cache, &job_path, "cancelled", LATER).await;
    cache.fetch(&policy).await.expect(200);
    let deleted = job["done"].as_u64().expect("a number");
    assert_eq!(audited(&cache, &ns).await, (deleted, false));
}

/// Before there were jobs, such a flush was given up and answered with `outcome_unknown`.
#[tokio::test]
async fn a_flush_that_takes_longer_than_its_request_becomes_a_job() {
    let shard = SlowShard::very_slow();
    for (settings, _database) in database::both_settings() {
        let service = Service::start(shard.impatient(settings));
        let (cache, ns) = (service.client(), namespace("jobs"));
        shard.fill(&cache, &ns).await;
        let job_path = job_path(cache.flush(&ns, &[]).await);
        let (mut last, mut grew, mut estimates) = (0, 0, 0);
        let job = eventually(LATER, async || {
            let job = cache.fetch(&job_path).await.expect(200).json();
            let done = job["done"].as_u64().expect("a number");
            grew += u64::from(done > last);
            last = done;
            if job["state"] == "running" {
                assert_eq!(job["result"], Value::Null);
                if let Some(estimate) = job["estimate"].as_u64().filter(|_| done > ENTRIES / 3) {
                    assert!((ENTRIES * 3 / 5..ENTRIES * 7 / 5).contains(&estimate), "{job}");
                    estimates += 1;
                }
                assert_eq!(cache.metrics().await.total("sidecache_jobs_running"), 1.0);
            }
            ensure!(job["state"] == "done", "{job}");
            Ok(job)
        })
        .await;
        assert!(grew > 3 && estimates > 0, "the job shows its progress, not only its end");
        assert_eq!(job["result"], json!({"success": true, "deleted_count": ENTRIES}));
        shard.speed_up();
        assert_eq!(stored(&cache, &ns).await, 0);
        assert_eq!(audited(&cache, &ns).await, (ENTRIES, true));
        assert_eq!(cache.metrics().await.total("sidecache_jobs_running"), 0.0);
    }
}

#[tokio::test]
async fn a_flush_continues_when_its_client_disconnects() {
    let shard = SlowShard::start();
    let service = Service::start(shard.added_to(Settings::shards()));
    let (cache, ns) = (service.client(), namespace("jobs"));
    shard.fill(&cache, &ns).await;
    let mut stream = TcpStream::connect(service.address()).await.expect("the service accepts connections");
    let head = format!("DELETE {} HTTP/1.1\r\nhost: localhost\r\n\r\n", cache_path(&ns));
    stream.write_all(head.as_bytes()).await.expect("the service takes the request");
    eventually(SOON, async || {
        let left = stored(&cache, &ns).await;
        ensure!(left < ENTRIES, "the flush has not begun");
        Ok(())
    })
    .await;
    drop(stream);
    eventually(LATER, async || {
        let left = stored(&cache, &ns).await;
        ensure!(left == 0, "{left} are left");
        Ok(())
    })
    .await;
    assert_eq!(audited(&cache, &ns).await, (ENTRIES, true));
}

#[tokio::test]
async fn another_instance_shows_and_cancels_a_job() {
    let shard = SlowShard::start();
    for (settings, _database) in database::both_settings() {
        let settings = shard.added_to(settings);
        let [one, other] = [(); 2].map(|()| Service::start(settings.clone()));
        let (first, second, ns) = (one.client(), other.client(), namespace("jobs"));
        shard.fill(&first, &ns).await;
        let job_path = job_path(flush_async(&first, &ns).await);
        eventually(SOON, async || {
            let job = second.fetch(&job_path).await.expect(200).json();
            ensure!(job["state"] == "running" && job["done"].as_u64() > Some(0), "{job}");
            let listed = second.fetch("/api/v1/jobs").await.expect(200).json();
            assert_eq!(listed["jobs"][0]["id"], job["id"]);
            Ok(())
        })
        .await;
        second.send(Method::DELETE, &job_path, &[], None).await.expect(200);
        let job = in_state(&first, &job_path, "cancelled", SOON).await;
        let deleted = job["done"].as_u64().expect("a number");
        assert!((1..ENTRIES).contains(&deleted), "{job}");
        assert_eq!(job["result"], json!({"success": false, "deleted_count": deleted}));
        assert_eq!(in_state(&second, &job_path, "cancelled", SOON).await, job);
        shard.speed_up();
        assert_eq!(stored(&second, &ns).await, ENTRIES - deleted, "the job counted its deleted entries exactly");
        assert_eq!(audited(&first, &ns).await, (deleted, false));
        assert_eq!(first.metrics().await.total("sidecache_jobs_cancelled_total"), 1.0);
    }
}

#[tokio::test]
async fn the_instance_that_runs_a_job_cancels_it() {
    let shard = SlowShard::start();
    let service = Service::start(shard.added_to(Settings::shards()));
    let (cache, ns) = (service.client(), namespace("jobs"));
    shard.fill(&cache, &ns).await;
    let job_path = job_path(flush_async(&cache, &ns).await);
    cache.send(Method::DELETE, &job_path, &[], None).await.expect(200);
    let job = in_state(&cache, &job_path, "cancelled", SOON).await;
    let deleted = job["done"].as_u64().expect("a number");
    shard.speed_up();
    assert_eq!(stored(&cache, &ns).await, ENTRIES - deleted);
    assert_eq!(audited(&cache, &ns).await, (deleted, false));
}

#[tokio::test]
async fn a_job_of_an_instance_that_was_killed_fails_and_is_audited_once() {
    let shard = SlowShard::start();
    for (settings, _database) in database::both_settings() {
        let settings = shard.added_to(settings);
        let [mut killed, one, other] = [(); 3].map(|()| Service::start(settings.clone()));
        let (cache, ns) = (killed.client(), namespace("jobs"));
        shard.fill(&cache, &ns).await;
        let job_path = job_path(flush_async(&cache, &ns).await);
        killed.kill();
        shard.speed_up();
        for service in [&one, &other] {
            let cache = service.client();
            let job = in_state(&cache, &job_path, "failed", INSTANCE_LOST).await;
            assert_eq!((&job["result"]["success"], &job["result"]["code"]), (&json!(false), &json!("instance_lost")));
            let (_, is_complete) = audited(&cache, &ns).await;
            assert!(!is_complete);
        }
        let failed = async |service: &Service| service.client().metrics().await.total("sidecache_jobs_failed_total");
        assert_eq!(failed(&one).await + failed(&other).await, 1.0, "exactly one instance counts the failed job");
    }
}

#[tokio::test]
async fn an_instance_that_was_reported_lost_stops_its_job() {
    let shard = SlowShard::start();
    let settings = shard.added_to(Settings::shards());
    let [paused, other] = [(); 2].map(|()| Service::start(settings.clone()));
    let (cache, ns) = (paused.client(), namespace("jobs"));
    shard.fill(&cache, &ns).await;
    let job_path = job_path(flush_async(&cache, &ns).await);
    paused.signal(Signal::Stop);
    in_state(&other.client(), &job_path, "failed", INSTANCE_LOST).await;
    paused.signal(Signal::Cont);
    // A new client: the earlier connections are closed by now.
    let cache = paused.client();
    let job = in_state(&cache, &job_path, "failed", SOON).await;
    assert_eq!(job["result"]["code"], "instance_lost");
    audited(&other.client(), &ns).await;
    let left = stored(&other.client(), &ns).await;
    assert!(left > 0, "the job must stop");
    // The failure is logged and counted once.
    assert_eq!(cache.metrics().await.total("sidecache_jobs_failed_total"), 0.0);
    assert_eq!(other.client().metrics().await.total("sidecache_jobs_failed_total"), 1.0);
}

#[tokio::test]
async fn a_service_that_stops_ends_its_jobs() {
    let shard = SlowShard::start();
    for (settings, _database) in database::both_settings() {
        let settings = shard.added_to(settings);
        let service = Service::start(settings.clone());
        let (cache, ns) = (service.client(), namespace("jobs"));
        shard.fill(&cache, &ns).await;
        let job_path = job_path(flush_async(&cache, &ns).await);
        assert!(service.stop().success());
        shard.speed_up();
        let service = Service::start(settings);
        let cache = service.client();
        let job = cache.fetch(&job_path).await.expect(200).json();
        let deleted = job["done"].as_u64().expect("a number");
        assert_eq!((&job["state"], &job["result"]["code"]), (&json!("failed"), &json!("instance_stopped")));
        assert_eq!(stored(&cache, &ns).await, ENTRIES - deleted);
        assert_eq!(audited(&cache, &ns).await, (deleted, false));
    }
}

#[tokio::test]
async fn a_job_runs_while_the_database_is_down() {
    let shard = SlowShard::start();
    let mut server = Postgres::start();
    let url = server.fresh_database();
    let settings = shard.added_to(Settings::shards()).set("database_url", &url).set("database_timeout_ms", 500);
    let [one, other] = [(); 2].map(|()| Service::start(settings.clone()));
    let (cache, ns) = (one.client(), namespace("jobs"));
    shard.fill(&cache, &ns).await;
    server.kill();
    let job_path = job_path(flush_async(&cache, &ns).await);
    let job = cache.fetch(&job_path).await.expect(200).json();
    assert_eq!(job["state"], "running");
    other.client().fetch(&job_path).await.expect_error(503, "database_unavailable");
    cache.fetch("/api/v1/jobs").await.expect_error(503, "database_unavailable");
    shard.speed_up();
    let job = in_state(&cache, &job_path, "done", LATER).await;
    assert_eq!(job["result"], json!({"success": true, "deleted_count": ENTRIES}));
    server.run();
    let (other, database) = (other.client(), Database::Postgres(url));
    eventually(LATER, async || {
        let answer = other.fetch(&job_path).await;
        ensure!(answer.status == 200, "{}", answer.text());
        assert_eq!(answer.json()["state"], "done");
        Ok(())
    })
    .await;
    assert_eq!(audited(&other, &ns).await, (ENTRIES, true));
    assert_eq!(database.count("cache_audit").await.expect("the table"), 1);
    assert_eq!(cache.metrics().await.total("sidecache_jobs_unsaved_total"), 0.0);
}

#[tokio::test]
async fn a_failing_shard_fails_the_job() {
    let shard = SlowShard::start();
    let service = Service::start(shard.added_to(Settings::shards()).set("redis_timeout_ms", 300));
    let (cache, ns) = (service.client(), namespace("jobs"));
    shard.fill(&cache, &ns).await;
    let job_path = job_path(flush_async(&cache, &ns).await);
    eventually(SOON, async || {
        let job = cache.fetch(&job_path).await.expect(200).json();
        ensure!(job["done"].as_u64() > Some(0), "{job}");
        Ok(())
    })
    .await;
    shard.stop();
    let job = in_state(&cache, &job_path, "failed", SOON).await;
    let result = &job["result"];
    assert_eq!((&result["success"], &result["code"]), (&json!(false), &json!("outcome_unknown")), "{job}");
    let (deleted, is_complete) = audited(&cache, &ns).await;
    assert_eq!((&json!(deleted), is_complete), (&job["done"], false));
}

#[tokio::test]
async fn too_many_flushes_are_refused_before_they_delete_anything() {
    const MOST: usize = 32;
    let shard = SlowShard::start();
    let service = Service::start(shard.added_to(Settings::shards()));
    let (cache, ns, refused) = (service.client(), namespace("jobs"), namespace("jobs"));
    cache.set(&refused, "k", "1").await.expect(201);
    shard.fill(&cache, &ns).await;
    let mut paths = Vec::new();
    for _ in 0..MOST {
        paths.push(job_path(flush_async(&cache, &ns).await));
    }
    flush_async(&cache, &refused).await.expect_error(503, "overloaded");
    assert_eq!(cache.metrics().await.total("sidecache_jobs_refused_total"), 1.0);
    cache.get(&refused, "k").await.expect(200);
    for job_path in &paths {
        cache.send(Method::DELETE, job_path, &[], None).await.expect(200);
    }
    for job_path in &paths {
        in_state(&cache, job_path, "cancelled", LATER).await;
    }
    // There is room again: a flush within its request waits for its turn.
    cache.flush(&refused, &[]).await.expect_json(200, &json!({"success": true, "deleted_count": 1}));
}

/// A command line that calls a service.
fn command(service: &Service, words: &[&str]) -> Command {
    let mut command = process::dying_with_us(env!("CARGO_BIN_EXE_sidecache").as_ref(), Signal::Kill);
    command.args(words).env("SIDECACHE_URL", format!("http://{}", service.address()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[tokio::test]
async fn the_command_line_waits_for_a_job() {
    let shard = SlowShard::very_slow();
    let service = Service::start(shard.impatient(Settings::shards()));
    let (cache, ns) = (service.client(), namespace("jobs"));
    shard.fill(&cache, &ns).await;
    let ended = command(&service, &["flush", &ns, "--yes"]).output().expect("the program runs");
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(String::from_utf8_lossy(&ended.stdout), format!("deleted 1,500 entries of {ns}\n"));
    let listed = command(&service, &["jobs"]).output().expect("the program runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains(&ns) && listed.contains("done") && listed.contains("1,500"), "{listed}");
}

#[tokio::test]
async fn ctrl_c_leaves_a_job_running_and_says_how_to_show_it() {
    let shard = SlowShard::very_slow();
    let service = Service::start(shard.impatient(Settings::shards()));
    let (cache, ns) = (service.client(), namespace("jobs"));
    shard.fill(&cache, &ns).await;
    let mut flush = Process::spawn(command(&service, &["flush", &ns, "--yes"]), Signal::Kill);
    let mut said = flush.child().stderr.take().expect("a pipe");
    let job_path = eventually(SOON, async || {
        let listed = cache.fetch("/api/v1/jobs").await.expect(200).json();
        let id = listed["jobs"][0]["id"].as_str().map(str::to_owned);
        Ok(format!("/api/v1/jobs/{}", id.ok_or_else(|| anyhow::anyhow!("no job yet"))?))
    })
    .await;
    // The command catches the signal only after it has read its job; before that, the signal would kill the command.
    eventually(SOON, async || {
        let looks = std::fs::read_to_string(format!("/proc/{}/status", flush.id()))?;
        let caught = looks.lines().find_map(|line| line.strip_prefix("SigCgt:")).map(str::trim);
        let caught = u64::from_str_radix(caught.unwrap_or_default(), 16)?;
        ensure!(caught & 0b10 != 0, "the command does not catch SIGINT yet");
        Ok(())
    })
    .await;
    flush.signal(Signal::Int);
    let ended = flush.wait(SOON).expect("the command ends");
    assert_eq!(ended.code(), Some(6));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut said, &mut text).expect("the messages are text");
    let id = job_path.rsplit('/').next().expect("a path ends with the id");
    assert!(text.contains(&format!("sidecache jobs show {id}")), "{text}");
    assert!(text.contains(&format!("sidecache jobs cancel {id}")), "{text}");
    let shown = command(&service, &["jobs", "show", id, "--wait", "--json"]).output().expect("the program runs");
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("a job in JSON");
    assert_eq!(shown["result"], json!({"success": true, "deleted_count": ENTRIES}));
    let gone = command(&service, &["jobs", "cancel", "x-1"]).output().expect("the program runs");
    assert_eq!(gone.status.code(), Some(1));
}

/// The bug: the result of a job of the kind `mark_stale` was `deleted_count`.
async fn regression_a_job_that_marks_says_how_many_it_marked(service: &Service) {
    let (cache, ns) = (service.client(), namespace("jobs-mark"));
    let entry = |key: &str| json!({"key": key, "value": 1, "ttl": 600, "stale_while_revalidate": 60});
    cache.fill(&ns, &json!([entry("a"), entry("b")])).await;
    let counted = cache.flush(&ns, &[("mode", "stale"), ("dry_run", "true")]).await;
    counted.expect_json(200, &json!({"success": true, "marked_count": 0, "matched_count": 2}));
    let path = format!("{}?mode=stale", cache_path(&ns));
    let job_path = job_path(cache.send(Method::DELETE, &path, &[("prefer", "respond-async")], None).await);
    let job = in_state(&cache, &job_path, "done", SOON).await;
    assert_eq!(job["kind"], "mark_stale");
    assert_eq!(job["result"], json!({"success": true, "marked_count": 2}));
    let id = job["id"].as_str().expect("a text").to_owned();
    let shown = command(service, &["jobs", "show", &id]).output().expect("the program runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("marked") && !shown.contains("delete"), "{shown}");
    let counted = command(service, &["flush", &ns, "--stale", "--dry-run"]).output().expect("the program runs");
    let counted = String::from_utf8_lossy(&counted.stdout).into_owned();
    assert_eq!(counted, format!("2 entries of {ns} would be marked as stale\n"));
}

/// The bug: such an answer had `deleted_count`, and the command line spoke of deleted entries.
#[tokio::test]
async fn regression_a_mark_that_fails_on_a_shard_says_how_many_entries_are_marked() {
    let mut servers = Redis::three();
    let service = Service::start(Settings::on(&servers));
    let (cache, ns) = (service.client(), namespace("jobs-mark"));
    let entry = |number: usize| json!({"key": format!("k{number}"), "value": 1, "stale_while_revalidate": 600});
    cache.fill(&ns, &json!((0..60).map(entry).collect::<Vec<_>>())).await;
    servers[0].kill();
    let failed = cache.flush(&ns, &[("mode", "stale")]).await.expect(503);
    assert!((1..60).contains(&failed.number("marked_count")), "{}", failed.json());
    assert_eq!(failed.json().get("deleted_count"), None);
    let told = command(&service, &["flush", &ns, "--stale", "--yes"]).output().expect("the program runs");
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("marked as stale before the error") && !told.contains("deleted"), "{told}");
}
