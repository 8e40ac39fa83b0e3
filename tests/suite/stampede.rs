//! Stampedes: very many programs miss a key at once, each asks for a lease, and one of them loads the value. Three
//! instances on real shards. The tests count loads; they print times, but do not limit them. `CHAOS=long` (`make chaos`)
//! has more readers and keys. The last test is about a waiter that no message wakes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{SOON, eventually};
use crate::support::load::WHOLE_MACHINE;
use crate::support::proxy::{Of, Proxy};
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};

/// How long the source takes to load a value.
const LOAD: Duration = Duration::from_millis(200);

/// How many readers one key has, and how many keys are missed at once: few in `make test`, many with `CHAOS=long`.
fn readers_and_keys() -> (usize, usize) {
    if std::env::var_os("CHAOS").is_some() { (1_000, 10_000) } else { (200, 1_000) }
}

/// Readers that read at the same time, so that there are enough file descriptors.
const AT_ONCE: usize = 3_000;

/// How long a reader of many keys waits before it asks again for those that others load.
const NEXT_TRY: Duration = Duration::from_millis(20);

/// What all readers of a test share.
struct Stampede {
    clients: Vec<Client>,
    namespace: String,
    /// What a read asks for.
    prefer: &'static str,
    /// Whether the first program that gets a lease never stores the value.
    first_one_fails: AtomicBool,
    loads: AtomicU64,
    /// Reads that ended without the value, because another program had the lease for longer than they waited.
    held: AtomicU64,
}

/// Three instances on the same shards, with the same database.
fn instances() -> Vec<Service> {
    let settings = Settings::shards();
    (0..3).map(|_| Service::start(settings.clone())).collect()
}

impl Stampede {
    fn on(services: &[Service], prefer: &'static str) -> Stampede {
        Stampede {
            clients: services.iter().map(Service::client).collect(),
            namespace: namespace("stampede"),
            prefer,
            first_one_fails: AtomicBool::new(false),
            loads: AtomicU64::new(0),
            held: AtomicU64::new(0),
        }
    }

    fn loads(&self) -> u64 {
        self.loads.load(Ordering::SeqCst)
    }

    fn held(&self) -> u64 {
        self.held.load(Ordering::SeqCst)
    }

    /// Gets a key as a program does, through one instance. Returns how long that took.
    async fn get(&self, instance: usize, key: &str) -> Duration {
        let client = &self.clients[instance];
        let began = Instant::now();
        loop {
            let answer = client.get_with(&self.namespace, key, &[("prefer", self.prefer)]).await;
            if answer.status == 200 {
                assert_eq!(answer.value(), "\"loaded\"");
                return began.elapsed();
            }
            let answer = answer.expect(404);
            let lease = answer.header("cache-lease").expect("a miss says who has the lease");
            let Some(token) = lease.strip_prefix("won;token=\"").and_then(|rest| rest.split('"').next()) else {
                assert!(lease.starts_with("held;ttl="), "{lease}");
                self.held.fetch_add(1, Ordering::SeqCst);
                continue;
            };
            self.loads.fetch_add(1, Ordering::SeqCst);
            sleep(LOAD).await;
            if self.first_one_fails.swap(false, Ordering::SeqCst) {
                return began.elapsed();
            }
            let (path, body) = (key_path(&self.namespace, key), br#"{"value":"loaded"}"#.to_vec());
            client.send(Method::PUT, &path, &[("cache-lease", token)], Some(body)).await.expect(201);
            return began.elapsed();
        }
    }

    /// Gets many keys as a program does, through one instance. Returns how long that took.
    async fn get_many(&self, instance: usize, mut missing: Vec<String>) -> Duration {
        let client = &self.clients[instance];
        let began = Instant::now();
        loop {
            let body = json!({"keys": missing, "lease": 10}).to_string();
            let results = client.mget_raw(&self.namespace, body).await.expect(200).json()["results"].take();
            let entry = |(key, result): (&String, &Value)| {
                let token = result["lease"]["token"].as_str()?;
                Some(json!({"key": key, "value": "loaded", "lease": token}))
            };
            let won: Vec<Value> = results.as_object().expect("results by key").iter().filter_map(entry).collect();
            if !won.is_empty() {
                self.loads.fetch_add(won.len() as u64, Ordering::SeqCst);
                sleep(LOAD).await;
                client.fill(&self.namespace, &json!(won)).await;
            }
            missing.retain(|key| results[key]["lease"]["state"] == "held");
            if missing.is_empty() {
                return began.elapsed();
            }
            sleep(NEXT_TRY).await;
        }
    }

    /// Lets readers get their keys at once, each in its own task: `readers` are pairs of an instance and a key. Prints
    /// how long they took.
    async fn run(self: &Arc<Self>, what: &str, readers: impl IntoIterator<Item = (usize, String)>) {
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        let tasks = readers.into_iter().map(|(instance, key)| {
            let (stampede, at_once) = (Arc::clone(self), Arc::clone(&at_once));
            tokio::spawn(async move {
                let _place = at_once.acquire().await.expect("never closed");
                stampede.get(instance, &key).await
            })
        });
        self.wait_for(what, tasks.collect()).await;
    }

    async fn wait_for(&self, what: &str, tasks: Vec<JoinHandle<Duration>>) {
        let mut times: Vec<Duration> =
            join_all(tasks).await.into_iter().map(|took| took.expect("the reader does not panic")).collect();
        times.sort_unstable();
        let at = |part: usize| times[(times.len() - 1) * part / 100];
        eprintln!(
            "{what}: {} readers, {} loads, {} held; half of the readers within {:.0?}, 99 % within {:.0?}, all within \
             {:.0?}",
            times.len(),
            self.loads(),
            self.held(),
            at(50),
            at(99),
            at(100),
        );
    }
}

/// Many readers of one key, spread over the instances.
fn of_one_key(services: &[Service]) -> impl Iterator<Item = (usize, String)> {
    let instances = services.len();
    (0..readers_and_keys().0).map(move |reader| (reader % instances, "popular".to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_readers_of_a_missing_key_one_loads() {
    let _alone = WHOLE_MACHINE.lock().await;
    let services = instances();
    let stampede = Arc::new(Stampede::on(&services, "lease=10, wait=4"));
    stampede.run("one key", of_one_key(&services)).await;
    assert_eq!((stampede.loads(), stampede.held()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn if_the_holder_of_the_lease_never_fills_one_other_reader_loads() {
    let _alone = WHOLE_MACHINE.lock().await;
    let services = instances();
    let stampede = Arc::new(Stampede::on(&services, "lease=1, wait=4"));
    stampede.first_one_fails.store(true, Ordering::SeqCst);
    stampede.run("one key, whose first holder fails", of_one_key(&services)).await;
    assert_eq!((stampede.loads(), stampede.held()), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_missing_keys_is_loaded_once() {
    let _alone = WHOLE_MACHINE.lock().await;
    let services = instances();
    let stampede = Arc::new(Stampede::on(&services, "lease=10, wait=4"));
    let (instances, (_, keys)) = (services.len(), readers_and_keys());
    let readers = (0..keys * instances).map(|reader| (reader % instances, format!("key {}", reader / instances)));
    stampede.run("many keys", readers).await;
    assert_eq!(stampede.loads(), keys as u64);
}

/// Each instance has a program that reads all keys, in ten requests at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_keys_that_are_missing_in_batches_is_loaded_once() {
    let _alone = WHOLE_MACHINE.lock().await;
    let services = instances();
    let stampede = Arc::new(Stampede::on(&services, ""));
    let keys = readers_and_keys().1;
    let batch = |number: usize| (0..keys / 10).map(move |key| format!("key {number} {key}")).collect::<Vec<String>>();
    let tasks = (0..services.len() * 10).map(|reader| {
        let (stampede, keys, instance) =
            (Arc::clone(&stampede), batch(reader / services.len()), reader % services.len());
        tokio::spawn(async move { stampede.get_many(instance, keys).await })
    });
    stampede.wait_for("many keys in batches", tasks.collect()).await;
    assert_eq!(stampede.loads(), keys as u64);
}

/// While a reader waits, its instance remembers that the lease is held. No message about the fill arrives, so for later
/// readers this is true only within `max_staleness`.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_filled_longer_ago_than_the_bound_is_not_held() {
    const BOUND: Duration = Duration::from_millis(1_000);
    let redis = Redis::start();
    let proxy = Proxy::in_front_of(&redis);
    let start = |url: String| Service::start(Settings::none().set("redis_shards", format!("a={url}")));
    let [deaf, other] = [proxy.url(), redis.url()].map(start);
    let (deaf, other, ns) = (deaf.client(), other.client(), namespace("deaf"));

    let won = other.get_with(&ns, "k", &[("prefer", "lease=10")]).await.expect(404);
    let lease = won.header("cache-lease").expect("a lease");
    let token = lease.strip_prefix("won;token=\"").and_then(|rest| rest.split('"').next()).expect("a token");
    let waiter = {
        let (deaf, ns) = (deaf.clone(), ns.clone());
        tokio::spawn(async move { deaf.get_with(&ns, "k", &[("prefer", "lease=10, wait=4")]).await })
    };
    eventually(SOON, async || {
        ensure!(deaf.metrics().await.total("sidecache_lease_waiting") > 0.0, "the waiter has not asked the shard");
        Ok(())
    })
    .await;
    proxy.swallow(Of::Subscribers);
    let body = br#"{"value":"loaded"}"#.to_vec();
    other.send(Method::PUT, &key_path(&ns, "k"), &[("cache-lease", token)], Some(body)).await.expect(201);
    // The instance notices after 2 s that its subscription is dead.
    sleep(BOUND + BOUND / 10).await;
    let seen = deaf.get_with(&ns, "k", &[("prefer", "lease=10")]).await.expect(200);
    assert_eq!(seen.value(), "\"loaded\"");
    // This read began before the fill, so any answer is correct.
    waiter.await.expect("the waiter does not panic");
}
