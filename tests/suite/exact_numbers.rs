//! Compares the stats of a namespace with a simple model, over ten thousand random operations: on two instances with
//! the same shards, and on the embedded store. At every quiet moment the stats of each instance, the model, and a
//! walk over Redis agree.
//!
//! One driver sends one request at a time, so the model can predict every answer. The only exception is an entry that
//! expires during the request: there the answer decides. `TEST_SEED` repeats a run, as far as the clock allows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{SOON, eventually};
use crate::support::random::Random;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};
use crate::support::walk::{Books, ENTRY_OVERHEAD, agreed};

const OPERATIONS: usize = 10_000;
/// Pauses in which entries with a TTL of one second expire. Every second pause ends with a check.
const PAUSES: usize = 10;
const PAUSE: Duration = Duration::from_millis(1_200);

const GROUPS: [&str; 4] = ["a", "user", "ü x", "/*[?"];
const KEYS_OF_GROUP: usize = 400;
const TAGS: [&str; 5] = ["t0", "t1", "a b", "ü", "[t]"];

/// The tolerance for differences between the clocks.
const MARGIN: Duration = Duration::from_millis(20);

/// An entry that should be in the cache.
struct Item {
    value: String,
    tags: BTreeSet<&'static str>,
    /// The earliest and the latest moment at which the entry may expire, if it has a TTL.
    end: Option<(Instant, Instant)>,
}

/// The period between a request and its answer.
#[derive(Clone, Copy)]
struct Period {
    asked: Instant,
    answered: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Alive,
    Expired,
    /// The entry expires about now.
    Unsure,
}

#[derive(Default)]
struct Model {
    items: BTreeMap<String, Item>,
    hits: u64,
    misses: u64,
    expirations: u64,
    /// Entries that expired or were replaced; no answer told which.
    unsure: u64,
}

impl Item {
    fn state(&self, period: Period) -> State {
        match self.end {
            None => State::Alive,
            Some((earliest, _)) if period.answered + MARGIN < earliest => State::Alive,
            Some((_, latest)) if period.asked > latest + MARGIN => State::Expired,
            Some(_) => State::Unsure,
        }
    }
}

impl Model {
    fn state(&self, key: &str, period: Period) -> State {
        self.items.get(key).map_or(State::Absent, |item| item.state(period))
    }

    /// Records that an answer said the key is absent. Panics if the model contradicts.
    fn record_absent(&mut self, key: &str, period: Period) {
        let state = self.state(key, period);
        assert_ne!(state, State::Alive, "{key:?} is absent");
        if self.items.remove(key).is_some() {
            self.expirations += 1;
        }
    }

    /// Checks that the model allows the entry to be present.
    fn expect_present(&self, key: &str, period: Period) {
        let state = self.state(key, period);
        assert!([State::Alive, State::Unsure].contains(&state), "{key:?} is present, but should be {state:?}");
    }

    /// Removes the entries that have expired by now.
    ///
    /// # Errors
    ///
    /// When an entry may or may not have expired.
    fn settle(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        // Allows time for the check that follows, during which no entry may expire.
        let period = Period { asked: now, answered: now + Duration::from_millis(200) };
        let before = self.items.len();
        self.items.retain(|_, item| item.state(period) != State::Expired);
        self.expirations += (before - self.items.len()) as u64;
        let unsure = self.items.values().filter(|item| item.state(period) == State::Unsure).count();
        ensure!(unsure == 0, "{unsure} entries expire just now");
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.items.values().map(|item| item.value.len() as u64).sum()
    }

    /// The bytes that a quota would charge.
    fn charged(&self) -> u64 {
        let tags = |item: &Item| item.tags.iter().copied().collect::<Vec<_>>().join("\n").len();
        let charge = |(key, item): (&String, &Item)| (key.len() + tags(item) + item.value.len()) as u64;
        self.items.iter().map(charge).sum::<u64>() + self.items.len() as u64 * ENTRY_OVERHEAD
    }

    fn tagged(&self, tag: &str) -> BTreeSet<String> {
        self.items.iter().filter(|(_, item)| item.tags.contains(tag)).map(|(key, _)| key.clone()).collect()
    }
}

/// The driver: the model, and the instances that it is compared with.
struct Driver {
    random: Random,
    clients: Vec<Client>,
    servers: Option<[Redis; 3]>,
    ns: String,
    model: Model,
}

impl Driver {
    async fn run(mut self) {
        for operation in 1..=OPERATIONS {
            match self.random.below(1_000) {
                0..330 => self.set().await,
                330..380 => self.mset().await,
                380..500 => self.delete().await,
                500..570 => self.patch().await,
                570..800 => self.get().await,
                800..860 => self.head().await,
                860..960 => self.mget().await,
                960..966 => self.flush_pattern().await,
                966..969 => self.flush_tag().await,
                969 if self.random.one_in(4) => self.flush_all().await,
                _ => tokio::time::sleep(Duration::from_millis(self.random.between(1, 60) as u64)).await,
            }
            if operation % (OPERATIONS / PAUSES) == 0 {
                tokio::time::sleep(PAUSE).await;
                if operation % (2 * OPERATIONS / PAUSES) == 0 {
                    self.check().await;
                }
            }
        }
        self.flush_all().await;
        self.check().await;
        eprintln!(
            "{} hits, {} misses, {} expirations, {} of them unsure",
            self.model.hits, self.model.misses, self.model.expirations, self.model.unsure
        );
        // More than two thousand entries have a TTL of one second; most are overwritten, deleted or flushed before.
        assert!(self.model.expirations > 300, "{} expirations", self.model.expirations);
    }

    fn client(&mut self) -> Client {
        self.random.pick(&self.clients).clone()
    }

    fn key(&mut self) -> String {
        format!("{}:{}", self.random.pick(&GROUPS), self.random.below(KEYS_OF_GROUP))
    }

    fn keys(&mut self, most: usize) -> BTreeSet<String> {
        let count = self.random.between(1, most);
        (0..count).map(|_| self.key()).collect()
    }

    /// An entry with a value of a random size, and the TTL for its write.
    fn item(&mut self) -> (Item, Option<u64>) {
        let length = match self.random.below(40) {
            0 => 50_000,
            1..10 => 2_000,
            _ => 100,
        };
        let letter = *self.random.pick(&["x", "ü", "\\n"]);
        let value = format!("\"{}\"", letter.repeat(self.random.below(length)));
        let mut tags = BTreeSet::new();
        if self.random.one_in(2) {
            tags.extend((0..self.random.between(1, 3)).map(|_| *self.random.pick(&TAGS)));
        }
        let ttl = *self.random.pick(&[None, None, Some(1), Some(100)]);
        (Item { value, tags, end: None }, ttl)
    }

    async fn set(&mut self) {
        let (client, key) = (self.client(), self.key());
        let (item, ttl) = self.item();
        let asked = Instant::now();
        let body = format!("{{\"value\":{}{}}}", item.value, fields(&item, ttl));
        let answer = client.put(&self.ns, &key, body).await;
        let period = Period { asked, answered: Instant::now() };
        match answer.status {
            201 => self.model.record_absent(&key, period),
            200 => self.model.expect_present(&key, period),
            _ => drop(answer.clone().expect(201)),
        }
        assert_eq!(answer.json()["created"], answer.status == 201);
        self.model.items.insert(key, Item { end: ttl.map(|ttl| ends(period, ttl)), ..item });
    }

    async fn mset(&mut self) {
        let (client, now) = (self.client(), Instant::now());
        // The answer does not say which keys were present, so keys that expire soon are left out.
        let soon = Period { asked: now, answered: now + Duration::from_millis(300) };
        let mut keys = self.keys(20);
        keys.retain(|key| self.model.state(key, soon) != State::Unsure);
        let new: Vec<(String, Item, Option<u64>)> = keys
            .into_iter()
            .map(|key| {
                let (item, ttl) = self.item();
                (key, item, ttl)
            })
            .collect();
        if new.is_empty() {
            return;
        }
        let entries: Vec<String> = new
            .iter()
            .map(|(key, item, ttl)| {
                format!("{{\"key\":{},\"value\":{}{}}}", json!(key), item.value, fields(item, *ttl))
            })
            .collect();
        let asked = Instant::now();
        let answer = client.mset_raw(&self.ns, format!("{{\"entries\":[{}]}}", entries.join(","))).await;
        answer.expect_json(200, &json!({"success": true, "stored": new.len()}));
        let period = Period { asked, answered: Instant::now() };
        for (key, item, ttl) in new {
            match self.model.state(&key, period) {
                State::Expired => self.model.expirations += 1,
                State::Unsure => self.model.unsure += 1,
                State::Absent | State::Alive => {}
            }
            self.model.items.insert(key, Item { end: ttl.map(|ttl| ends(period, ttl)), ..item });
        }
    }

    async fn delete(&mut self) {
        let (client, key, asked) = (self.client(), self.key(), Instant::now());
        let answer = client.delete(&self.ns, &key).await;
        let period = Period { asked, answered: Instant::now() };
        if answer.status == 404 {
            return self.model.record_absent(&key, period);
        }
        answer.expect(200);
        self.model.expect_present(&key, period);
        self.model.items.remove(&key);
    }

    /// Changes the TTL, the tags, or both.
    async fn patch(&mut self) {
        let (client, key) = (self.client(), self.key());
        let (Item { tags, .. }, _) = self.item();
        let ttl = *self.random.pick(&[None, Some(None), Some(Some(1)), Some(Some(100))]);
        let changes_tags = ttl.is_none() || self.random.one_in(2);
        let mut body = json!({});
        if let Some(ttl) = ttl {
            body["ttl"] = json!(ttl);
        }
        if changes_tags {
            body["tags"] = json!(tags);
        }
        let asked = Instant::now();
        let answer = client.patch(&self.ns, &key, &body).await;
        let period = Period { asked, answered: Instant::now() };
        if answer.status == 404 {
            return self.model.record_absent(&key, period);
        }
        answer.expect(200);
        self.model.expect_present(&key, period);
        let item = self.model.items.get_mut(&key).expect("it is present");
        if let Some(ttl) = ttl {
            item.end = ttl.map(|ttl| ends(period, ttl));
        }
        if changes_tags {
            item.tags = tags;
        }
    }

    async fn get(&mut self) {
        let (client, key) = (self.client(), self.key());
        // The other instance may answer from L1 for up to `max_staleness`, unless the request forbids it.
        let strict = self.clients.len() == 1 || self.random.one_in(2);
        let headers: &[(&str, &str)] = if strict { &[("cache-control", "no-cache")] } else { &[] };
        let asked = Instant::now();
        let answer = client.get_with(&self.ns, &key, headers).await;
        let period = Period { asked, answered: Instant::now() };
        if self.read(&key, answer.status, period, strict) && strict {
            assert_eq!(answer.value(), self.model.items[&key].value, "{key}");
        }
    }

    async fn head(&mut self) {
        let (client, key) = (self.client(), self.key());
        let asked = Instant::now();
        let answer = client.send(Method::HEAD, &key_path(&self.ns, &key), &[], None).await;
        self.read(&key, answer.status, Period { asked, answered: Instant::now() }, false);
    }

    /// Counts a read of one key. Returns whether it was a hit.
    fn read(&mut self, key: &str, status: u16, period: Period, strict: bool) -> bool {
        match status {
            200 if strict => self.model.expect_present(key, period),
            200 => {}
            404 => self.model.record_absent(key, period),
            other => panic!("{other} for {key}"),
        }
        let hit = status == 200;
        *(if hit { &mut self.model.hits } else { &mut self.model.misses }) += 1;
        hit
    }

    async fn mget(&mut self) {
        let (client, keys) = (self.client(), self.keys(20));
        let asked = Instant::now();
        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
        let answer = client.mget(&self.ns, &names).await.expect(200).json();
        let period = Period { asked, answered: Instant::now() };
        let found: BTreeMap<&String, bool> =
            keys.iter().map(|key| (key, answer["results"][key]["found"] == true)).collect();
        for (key, found) in &found {
            self.read(key, if *found { 200 } else { 404 }, period, self.clients.len() == 1);
        }
        let hits = found.values().filter(|found| **found).count();
        assert_eq!((&answer["hits"], &answer["misses"]), (&json!(hits), &json!(keys.len() - hits)), "{answer}");
    }

    async fn flush_all(&mut self) {
        self.flush(&[], |_, _| true).await;
    }

    /// Flushes by pattern: the keys of a group that end with a certain digit.
    async fn flush_pattern(&mut self) {
        let (group, digit) = (*self.random.pick(&GROUPS), self.random.below(10).to_string());
        let escaped: String = group.chars().flat_map(|letter| ['\\', letter]).collect();
        let pattern = format!("{escaped}:*{digit}");
        let start = format!("{group}:");
        self.flush(&[("pattern", &pattern)], |key, _| key.starts_with(&start) && key.ends_with(&digit)).await;
    }

    async fn flush_tag(&mut self) {
        let tag = *self.random.pick(&TAGS);
        self.flush(&[("tag", tag)], |_, item| item.tags.contains(tag)).await;
    }

    /// Flushes a selection. Selected entries that do not count as deleted had expired before.
    async fn flush(&mut self, query: &[(&str, &str)], selected: impl Fn(&str, &Item) -> bool) {
        let (client, asked) = (self.client(), Instant::now());
        let deleted = client.flush(&self.ns, query).await.expect(200).number("deleted_count");
        let period = Period { asked, answered: Instant::now() };
        let (mut most, mut least) = (0, 0);
        let chosen: Vec<String> =
            self.model.items.iter().filter(|(key, item)| selected(key, item)).map(|(key, _)| key.clone()).collect();
        for key in &chosen {
            let state = self.model.items[key].state(period);
            least += u64::from(state == State::Alive);
            most += u64::from(state != State::Expired);
            self.model.items.remove(key);
        }
        assert!((least..=most).contains(&deleted), "{query:?} deleted {deleted}, not {least} to {most}");
        self.model.expirations += chosen.len() as u64 - deleted;
    }

    /// Compares everything at a quiet moment: no other request is in flight, and no entry expires.
    async fn check(&mut self) {
        let Driver { clients, servers, ns, model, .. } = self;
        let clients: Vec<&Client> = clients.iter().collect();
        eventually(SOON, async || {
            model.settle()?;
            let books = Books::said(clients[0], ns).await;
            let (keys, bytes) = (model.items.len() as u64, model.bytes());
            ensure!((books.keys, books.bytes) == (keys, bytes), "{books:?}, not {keys} keys of {bytes} bytes");
            ensure!(books.evictions == 0, "{books:?}");
            let (least, most) = (model.expirations, model.expirations + model.unsure);
            ensure!((least..=most).contains(&books.expirations), "{books:?}, not {least} to {most} expirations");
            for client in &clients {
                let stats = client.stats(ns).await.expect(200);
                let reads = (stats.number("hits"), stats.number("misses"));
                let expected = (model.hits, model.misses);
                ensure!(reads == expected, "(hits, misses) are {reads:?}, not {expected:?}");
                let charged = (stats.number("memory_charged_bytes"), model.charged());
                ensure!(charged.0 == charged.1, "{} bytes are charged, not {}", charged.0, charged.1);
                let rate = model.hits as f64 / (model.hits + model.misses).max(1) as f64;
                let said: Value = stats.json();
                ensure!(said["hit_rate"].as_f64().is_some_and(|said| (said - rate).abs() < 0.001), "{said}");
                ensure!(Books::said(client, ns).await == books, "{books:?}");
            }
            let listed = clients[0].all_keys(ns).await;
            ensure!(listed.iter().eq(model.items.keys()), "{} listed, {keys} in the model", listed.len());
            for tag in TAGS {
                let page = clients[0].list(ns, &[("tag", tag), ("limit", "1000")]).await.expect(200).json();
                let tagged: BTreeSet<String> = serde_json::from_value(page["keys"].clone())?;
                let expected = model.tagged(tag);
                ensure!(tagged == expected, "{tag}: {:?}", differing(&tagged, &expected));
            }
            let Some(servers) = servers else { return model.settle() };
            let walk = agreed(&clients, servers, ns).await?;
            let sizes: BTreeMap<String, u64> =
                model.items.iter().map(|(key, item)| (key.clone(), item.value.len() as u64)).collect();
            ensure!(walk.sizes == sizes, "Redis and the model differ in {:?}", differing(&walk.sizes, &sizes));
            for tag in TAGS {
                let tagged = walk.tags.get(tag).cloned().unwrap_or_default();
                let expected = model.tagged(tag);
                ensure!(tagged == expected, "{tag}: {:?}", differing(&tagged, &expected));
            }
            ensure!(!model.items.is_empty() || walk.names.is_empty(), "left behind: {:?}", walk.names);
            model.settle()
        })
        .await;
    }
}

/// Up to ten items that are in only one of the two collections.
fn differing<T: Clone + Ord>(one: impl IntoIterator<Item = T>, other: impl IntoIterator<Item = T>) -> Vec<T> {
    let (one, other): (BTreeSet<T>, BTreeSet<T>) = (one.into_iter().collect(), other.into_iter().collect());
    one.symmetric_difference(&other).take(10).cloned().collect()
}

/// The earliest and the latest moment at which an entry expires that was written within `period`.
fn ends(period: Period, ttl: u64) -> (Instant, Instant) {
    let ttl = Duration::from_secs(ttl);
    (period.asked + ttl, period.answered + ttl)
}

/// The optional fields of a write.
fn fields(item: &Item, ttl: Option<u64>) -> String {
    let ttl = ttl.map(|ttl| format!(",\"ttl\":{ttl}")).unwrap_or_default();
    let tags = if item.tags.is_empty() { String::new() } else { format!(",\"tags\":{}", json!(item.tags)) };
    ttl + &tags
}

#[tokio::test]
async fn the_stats_of_two_instances_on_three_shards_match_a_simple_model() {
    let servers = Redis::three();
    let settings = Settings::on(&servers);
    let (one, other) = (Service::start(settings.clone()), Service::start(settings));
    let driver = Driver {
        random: Random::new(),
        clients: vec![one.client(), other.client()],
        servers: Some(servers),
        ns: namespace("model"),
        model: Model::default(),
    };
    driver.run().await;
}

#[tokio::test]
async fn the_stats_of_the_embedded_store_match_a_simple_model() {
    let service = Service::start(Settings::embedded());
    let driver = Driver {
        random: Random::new(),
        clients: vec![service.client()],
        servers: None,
        ns: namespace("model"),
        model: Model::default(),
    };
    driver.run().await;
}
