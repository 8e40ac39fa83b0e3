//! What one shard can be asked: each verb is a script, its arguments and the reading of its answer.

use bytes::Bytes;
use fred::types::{Resp3Frame as Frame, Value};
use std::time::Duration;

use super::reply::{self, Unexpected};
use super::scripts;
use super::shard::{Effect, Shard};
use crate::model::{Entry, EntryKey, Namespace, Selection, UnixMillis, Version, Write};
use crate::store::{Error, Outcome, ShardHealth, Stored, Totals};

/// Keys that one script looks at, so that a shard is never kept from its other clients for long.
const FLUSHED_PER_SCRIPT: usize = 100;
const LISTED_PER_SCRIPT: usize = 250;
const SWEPT_PER_SCRIPT: u64 = 200;

impl Shard {
    /// Runs a script and reads its answer with `read`.
    pub async fn ask<T>(
        &self,
        script: &scripts::Script,
        effect: Effect,
        arguments: impl Fn() -> Vec<Value> + Send + Sync,
        read: impl FnOnce(Frame) -> Result<T, Unexpected>,
    ) -> Result<T, Error> {
        let frame = self.run(script, effect, arguments).await?;
        read(frame).map_err(|expected| Error::Protocol {
            shard: self.name.clone(),
            reason: format!("{expected} was expected"),
        })
    }

    /// Reads entries, in as many scripts as their size asks for.
    pub async fn get(&self, namespace: &str, keys: &[&str]) -> Result<Vec<Option<Entry>>, Error> {
        let mut entries = Vec::with_capacity(keys.len());
        while entries.len() < keys.len() {
            let wanted = &keys[entries.len()..];
            let arguments = || [namespace].into_iter().chain(wanted.iter().copied()).map(Value::from).collect();
            let read = |frame| {
                let answers = reply::array(frame)?;
                if answers.len() != wanted.len() {
                    return Err("one answer a key");
                }
                let given = answers.into_iter().take_while(|answer| !matches!(answer, Frame::Number { .. }));
                let entries = given.map(entry).collect::<Result<Vec<_>, _>>()?;
                if entries.is_empty() { Err("at least one entry") } else { Ok(entries) }
            };
            entries.extend(self.ask(&scripts::GET, Effect::Read, arguments, read).await?);
        }
        Ok(entries)
    }

    pub async fn set(&self, namespace: &str, writes: &[(&EntryKey, &Write)]) -> Result<Vec<Stored>, Error> {
        let arguments = || {
            let mut all = Vec::with_capacity(1 + 4 * writes.len());
            all.push(Value::from(namespace));
            for (key, write) in writes {
                all.push(Value::from(key.key()));
                all.push(Value::from(write.value.clone()));
                all.push(Value::from(write.ttl.map_or_else(String::new, |ttl| ttl.as_millis().to_string())));
                all.push(Value::from(write.tags.joined()));
            }
            all
        };
        let expected = writes.len();
        self.ask(&scripts::SET, Effect::Write, arguments, move |frame| {
            let answers = reply::array(frame)?.into_iter().map(stored).collect::<Result<Vec<_>, _>>()?;
            if answers.len() == expected { Ok(answers) } else { Err("one answer an entry") }
        })
        .await
    }

    /// Flushes step by step; counts into `deleted`, so that a failure keeps what was done.
    pub async fn flush(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        on_deleted: &(dyn for<'k> Fn(&'k str) + Sync),
        deleted: &mut u64,
    ) -> Result<(), Error> {
        let (kind, argument) = selector(selection);
        let (mut cursor, mut before) = ("0".to_owned(), String::new());
        loop {
            let count = selection.step(FLUSHED_PER_SCRIPT).to_string();
            let arguments = || {
                let all = [namespace.as_str(), &cursor, &count, &before, kind, argument];
                all.into_iter().map(Value::from).collect()
            };
            let (next, step, moment, keys) = self
                .ask(&scripts::FLUSH, Effect::Write, arguments, |frame| {
                    let [next, step, moment, keys] = reply::tuple(frame)?;
                    Ok((reply::text(next)?, reply::count(step)?, reply::text(moment)?, reply::texts(keys)?))
                })
                .await?;
            *deleted += step;
            keys.iter().for_each(|key| on_deleted(key));
            if next == "0" {
                return Ok(());
            }
            (cursor, before) = (next, moment);
        }
    }

    /// One step of a listing over `count` entries: the position to go on from (0 at the end) and the step's live keys.
    pub async fn list(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        position: u64,
        count: usize,
    ) -> Result<(u64, Vec<String>), Error> {
        let (kind, argument) = selector(selection);
        let (position, count) = (position.to_string(), count.to_string());
        let arguments = || {
            let all = [namespace.as_str(), &position, &count, kind, argument];
            all.into_iter().map(Value::from).collect()
        };
        self.ask(&scripts::LIST, Effect::Read, arguments, |frame| {
            let [next, keys] = reply::tuple(frame)?;
            Ok((reply::text(next)?.parse().map_err(|_| "a cursor")?, reply::texts(keys)?))
        })
        .await
    }

    /// Live keys of the namespace.
    pub async fn size(&self, namespace: &Namespace) -> Result<u64, Error> {
        let arguments = || vec![Value::from(namespace.as_str())];
        self.ask(&scripts::SIZE, Effect::Read, arguments, reply::count).await
    }

    /// Takes expired entries out of the books, at most [`SWEPT_PER_SCRIPT`] in each of `scripts`
    /// scripts; tells whether there may be more.
    pub async fn sweep(&self, namespace: &Namespace, scripts: usize) -> Result<bool, Error> {
        let arguments = || vec![Value::from(namespace.as_str()), Value::from(SWEPT_PER_SCRIPT.to_string())];
        for _ in 0..scripts {
            if self.ask(&scripts::SWEEP, Effect::Write, arguments, reply::count).await? < SWEPT_PER_SCRIPT {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub async fn totals(&self, namespace: &Namespace) -> Result<Totals, Error> {
        let arguments = || vec![Value::from(namespace.as_str())];
        self.ask(&scripts::TOTALS, Effect::Read, arguments, |frame| {
            let [hits, misses, keys, bytes, evictions, expirations] = reply::tuple(frame)?;
            Ok(Totals {
                hits: reply::count(hits)?,
                misses: reply::count(misses)?,
                keys: reply::count(keys)?,
                bytes: reply::count(bytes)?,
                evictions: reply::count(evictions)?,
                expirations: reply::count(expirations)?,
            })
        })
        .await
    }

    pub async fn health(&self) -> ShardHealth {
        let info = self.read("INFO", vec![Value::from("memory")]).await;
        let info = info.ok().and_then(|frame| reply::text(frame).ok());
        let field = |name: &str| {
            let line = info.as_deref()?.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().parse().ok()
        };
        let configured = field("maxmemory").filter(|bytes| *bytes > 0);
        ShardHealth {
            name: self.name.clone(),
            reachable: info.is_some(),
            used_bytes: field("used_memory").unwrap_or(0),
            limit_bytes: configured.or_else(|| field("total_system_memory")).unwrap_or(0),
        }
    }
}

/// How many entries a step of a listing looks at when `room` more keys are wanted.
pub fn list_count(selection: &Selection, room: usize) -> usize {
    match selection {
        // Few of the entries may match.
        Selection::Matching(_) => selection.step(LISTED_PER_SCRIPT),
        Selection::All | Selection::Tagged(_) => room.min(LISTED_PER_SCRIPT),
    }
}

/// The words by which the scripts know a selection.
fn selector(selection: &Selection) -> (&'static str, &str) {
    match selection {
        Selection::All => ("all", ""),
        Selection::Matching(pattern) => ("match", pattern.as_str()),
        Selection::Tagged(tag) => ("tag", tag.as_str()),
    }
}

fn entry(frame: Frame) -> Result<Option<Entry>, Unexpected> {
    if matches!(frame, Frame::Null) {
        return Ok(None);
    }
    let [value, version, created_at, remaining] = reply::tuple(frame)?;
    let remaining = reply::number(remaining)?;
    Ok(Some(Entry {
        // A reply's bytes are a slice of a read buffer, which a kept value must not pin.
        value: Bytes::copy_from_slice(&reply::bytes(value)?),
        version: Version(reply::count(version)?),
        created_at: UnixMillis(reply::count(created_at)?),
        expires_in: u64::try_from(remaining).ok().map(Duration::from_millis),
    }))
}

fn stored(frame: Frame) -> Result<Stored, Unexpected> {
    let [created, version] = reply::tuple(frame)?;
    let outcome = if reply::number(created)? == 1 { Outcome::Created } else { Outcome::Replaced };
    Ok(Stored { outcome, version: Version(reply::count(version)?) })
}
