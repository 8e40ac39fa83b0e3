//! Input crafted to be expensive: it costs about as much as other input of the same size.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::both_stores::on_both_stores;
use crate::support::client::Client;
use crate::support::collisions;
use crate::support::service::Service;

on_both_stores! {
    regression_keys_with_equal_hashes_are_as_fast_as_others,
}

/// The number of rounds. The fastest one counts, because other tests run at the same time.
const ROUNDS: usize = 5;

/// The bug: every map in memory used the hash of the ring. That hash is the same everywhere, so anybody can compute
/// keys with equal hashes. An mset of 1,000 such keys took 100 times as long as one of other keys.
async fn regression_keys_with_equal_hashes_are_as_fast_as_others(service: &Service) {
    let cache = service.client();
    let crafted = collisions::keys();
    let ordinary: Vec<String> =
        (0..crafted.len()).map(|i| format!("{i:0width$}", width = crafted[0].len())).collect();
    let (mut fastest_crafted, mut fastest_ordinary) = (Times::LONGEST, Times::LONGEST);
    for _ in 0..ROUNDS {
        fastest_crafted.keep_fastest(Times::of(&cache, &crafted).await);
        fastest_ordinary.keep_fastest(Times::of(&cache, &ordinary).await);
    }
    eprintln!("{:?}: crafted {fastest_crafted:?}, ordinary {fastest_ordinary:?}", service.store());
    // All crafted keys may belong to the same shard, which then does the work of three.
    for (crafted, ordinary) in fastest_crafted.all().into_iter().zip(fastest_ordinary.all()) {
        assert!(crafted < 8 * ordinary, "{fastest_crafted:?} for crafted keys, {fastest_ordinary:?} for others");
    }
}

/// The times of one batch each, with all keys.
#[derive(Clone, Copy, Debug)]
struct Times {
    mset: Duration,
    /// Answered by the store.
    first_mget: Duration,
    /// Answered by L1, if there is one.
    second_mget: Duration,
}

impl Times {
    const LONGEST: Times = Times { mset: Duration::MAX, first_mget: Duration::MAX, second_mget: Duration::MAX };

    async fn of(cache: &Client, keys: &[String]) -> Times {
        let ns = collisions::NAMESPACE;
        let entries: Vec<Value> = keys.iter().map(|key| json!({"key": key, "value": key})).collect();
        let begun = Instant::now();
        cache.fill(ns, &Value::from(entries)).await;
        let mset = begun.elapsed();
        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut mgets = [Duration::ZERO; 2];
        for mget in &mut mgets {
            let begun = Instant::now();
            let answer = cache.mget(ns, &names).await.expect(200);
            *mget = begun.elapsed();
            let answer = answer.json();
            assert_eq!(answer["hits"], keys.len());
            assert!(names.iter().all(|key| answer["results"][*key]["value"] == **key));
        }
        Times { mset, first_mget: mgets[0], second_mget: mgets[1] }
    }

    fn keep_fastest(&mut self, other: Times) {
        self.mset = self.mset.min(other.mset);
        self.first_mget = self.first_mget.min(other.first_mget);
        self.second_mget = self.second_mget.min(other.second_mget);
    }

    fn all(&self) -> [Duration; 3] {
        [self.mset, self.first_mget, self.second_mget]
    }
}
