//! Counts everything that Redis stores for one namespace, key by key, and compares it with the totals that the
//! service keeps.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;

use super::client::Client;
use super::redis::{Connection, Redis, Reply};

/// What the shards store for one namespace.
#[derive(Debug, Default)]
pub struct Walk {
    /// The length in bytes of every live value, by key.
    pub sizes: BTreeMap<String, u64>,
    /// The members of each tag's set.
    pub tags: BTreeMap<String, BTreeSet<String>>,
    /// The sums of the stored totals, `cache_stats`, over the shards.
    pub books: Books,
    /// Every name in Redis that contains the namespace, except the stored totals.
    pub names: Vec<String>,
}

/// The exact numbers of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub keys: u64,
    pub bytes: u64,
    pub evictions: u64,
    pub expirations: u64,
}

impl Walk {
    pub fn bytes(&self) -> u64 {
        self.sizes.values().sum()
    }
}

/// Walks over all shards.
///
/// The namespace must not be a prefix of another namespace.
///
/// # Errors
/// The first contradiction between the values, metadata, index, tags and totals of a shard. They agree only at a
/// quiet moment, after the service has noticed what expired.
pub fn walk(servers: &[Redis], ns: &str) -> anyhow::Result<Walk> {
    let mut walk = Walk::default();
    for server in servers {
        walk_shard(&mut server.connect(), ns, &mut walk)?;
    }
    Ok(walk)
}

fn walk_shard(shard: &mut Connection, ns: &str, walk: &mut Walk) -> anyhow::Result<()> {
    let names = shard.scan(&format!("*{ns}*"));
    let under = |prefix: &str| -> Vec<&str> {
        let prefix = format!("{prefix}:{ns}:");
        names.iter().filter_map(|name| name.strip_prefix(&prefix)).collect()
    };
    let full = |prefix: &str, key: &str| format!("{prefix}:{ns}:{key}");

    let keys = under("cache");
    let values: Vec<String> = keys.iter().map(|key| full("cache", key)).collect();
    let lengths = shard.pipeline(values.iter().map(|name| vec!["STRLEN", name]));
    let metas: Vec<String> = keys.iter().map(|key| full("cache_meta", key)).collect();
    let sizes = shard.pipeline(metas.iter().map(|name| vec!["HGET", name, "size_bytes"]));
    let mut bytes = 0;
    for ((key, length), size) in keys.iter().zip(lengths).zip(sizes) {
        let length = length.integer().unsigned_abs();
        ensure!(size != Reply::Bulk(None), "{key} has a value but no size_bytes");
        let size = size.integer().unsigned_abs();
        ensure!(length == size, "{key} has {length} bytes and a size_bytes of {size}");
        ensure!(walk.sizes.insert((*key).to_owned(), length).is_none(), "{key} is on two shards");
        bytes += length;
    }

    let alive: BTreeSet<&str> = keys.iter().copied().collect();
    let dead: Vec<&str> = under("cache_meta").into_iter().filter(|key| !alive.contains(key)).collect();
    ensure!(dead.is_empty(), "{} keys have metadata but no value: {:?}", dead.len(), some(&dead));

    let mut indexed = Vec::new();
    for name in names.iter().filter(|name| name.starts_with(&format!("cache_index:{ns}"))) {
        indexed.extend(members(shard, name));
    }
    indexed.sort();
    let twice = indexed.windows(2).find(|pair| pair[0] == pair[1]);
    ensure!(twice.is_none(), "a key is twice in the index: {twice:?}");
    let unknown: Vec<&String> = indexed.iter().filter(|key| !alive.contains(key.as_str())).collect();
    ensure!(unknown.is_empty(), "{} deleted keys in the index: {:?}", unknown.len(), some(&unknown));
    ensure!(indexed.len() == keys.len(), "{} keys in the index, {} alive", indexed.len(), keys.len());

    for tag in under("cache_tag") {
        let tagged = members(shard, &full("cache_tag", tag));
        let gone: Vec<&String> = tagged.iter().filter(|key| !alive.contains(key.as_str())).collect();
        ensure!(gone.is_empty(), "the tag {tag} still has {} deleted keys: {:?}", gone.len(), some(&gone));
        walk.tags.entry(tag.to_owned()).or_default().extend(tagged);
    }

    let books = books(shard, ns);
    ensure!(
        (books.keys, books.bytes) == (keys.len() as u64, bytes),
        "{} keys of {bytes} bytes, but the stored totals are {books:?}",
        keys.len(),
    );
    walk.books = walk.books.plus(books);
    walk.names.extend(names.into_iter().filter(|name| *name != format!("cache_stats:{ns}")));
    Ok(())
}

/// The start of a list, for messages.
fn some<T>(all: &[T]) -> &[T] {
    &all[..all.len().min(10)]
}

/// What a quota counts for an entry in addition to its value, key and tags, in bytes.
pub const ENTRY_OVERHEAD: u64 = 384;

impl Books {
    pub fn plus(self, other: Books) -> Books {
        Books {
            keys: self.keys + other.keys,
            bytes: self.bytes + other.bytes,
            evictions: self.evictions + other.evictions,
            expirations: self.expirations + other.expirations,
        }
    }

    /// The numbers in the stats of the service.
    pub async fn said(client: &Client, ns: &str) -> Books {
        let stats = client.stats(ns).await.expect(200);
        Books {
            keys: stats.number("total_keys"),
            bytes: stats.number("memory_used_bytes"),
            evictions: stats.number("evictions"),
            expirations: stats.number("expirations"),
        }
    }
}

/// The stored totals of one shard.
pub fn books(shard: &mut Connection, ns: &str) -> Books {
    let name = format!("cache_stats:{ns}");
    let reply = shard.command(&["HMGET", &name, "total_keys", "total_bytes", "evictions", "expirations"]);
    let number = |field: &Reply| match field {
        Reply::Bulk(None) => 0,
        number => u64::try_from(number.integer()).unwrap_or_else(|_| panic!("{name} has {number:?}")),
    };
    let [keys, bytes, evictions, expirations] = reply.items() else { panic!("{reply:?} has four fields") };
    Books { keys: number(keys), bytes: number(bytes), evictions: number(evictions), expirations: number(expirations) }
}

/// The sums of the stored totals over all shards.
pub fn all_books(servers: &[Redis], ns: &str) -> Books {
    servers.iter().fold(Books::default(), |sum, server| sum.plus(books(&mut server.connect(), ns)))
}

/// The members of an index or tag, without the marker of a bucket. The Redis type is not part of the contract.
fn members(shard: &mut Connection, name: &str) -> Vec<String> {
    let members = match shard.command(&["TYPE", name]).text().as_str() {
        "set" => shard.command(&["SMEMBERS", name]).texts(),
        "zset" => shard.command(&["ZRANGE", name, "0", "-1"]).texts(),
        "none" => Vec::new(),
        other => panic!("{name} is a {other}"),
    };
    members.into_iter().filter(|member| !member.is_empty()).collect()
}

/// Walks over all shards, and compares the totals with the stats of every client.
///
/// # Errors
/// The first contradiction.
pub async fn agreed(clients: &[&Client], servers: &[Redis], ns: &str) -> anyhow::Result<Walk> {
    let walk = walk(servers, ns)?;
    for client in clients {
        let said = Books::said(client, ns).await;
        ensure!(said == walk.books, "the service says {said:?}, the shards {:?}", walk.books);
    }
    Ok(walk)
}
