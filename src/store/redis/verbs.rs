//! What one shard can be asked: each verb is a script, its arguments and the reading of its answer.

use bytes::Bytes;
use fred::types::{Resp3Frame as Frame, Value};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::time::Duration;

use super::place::{self, PLACES};
use super::reply::{self, Unexpected};
use super::scripts;
use super::shard::{Effect, Party, Shard};
use crate::model::{
    Details, Entry, EntryKey, EvictionPolicy, Namespace, Selection, Tags, UnixMillis, Version, Write,
};
use crate::store::{Error, FlushProgress, Outcome, ShardHealth, Stored, Totals};

/// Keys that one script looks at, so that a shard is never kept from its other clients for long.
const FETCHED_PER_SCRIPT: usize = 100;
const FLUSHED_PER_SCRIPT: usize = 25;

/// Work of one script of a sweep, in the units of `lua/prelude.lua`.
const WORK_PER_SWEEP: u64 = 100;

/// Scripts in which a write makes room at most; a request's deadline ends first.
pub const MOST_ROUNDS: usize = 10_000;

/// What a namespace may take on a shard, and who goes when that is not enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant<'n> {
    pub namespace: &'n str,
    /// 0 for any number.
    pub limit_bytes: u64,
    pub policy: &'static str,
}

impl Shard {
    /// Runs a script for one operation and reads its answer with `read`.
    pub async fn ask<T>(
        &self,
        script: &scripts::Script,
        effect: Effect,
        arguments: impl Fn() -> Vec<Value> + Send + Sync,
        read: impl FnOnce(Frame) -> Result<T, Unexpected>,
    ) -> Result<T, Error> {
        self.ask_for(Party::Alone, script, effect, arguments, read).await
    }

    async fn ask_for<T>(
        &self,
        party: Party,
        script: &scripts::Script,
        effect: Effect,
        arguments: impl Fn() -> Vec<Value> + Send + Sync,
        read: impl FnOnce(Frame) -> Result<T, Unexpected>,
    ) -> Result<T, Error> {
        let frame = self.run(script, effect, party, arguments).await?;
        read(frame).map_err(|expected| self.unexpected(expected))
    }

    /// Reads entries, in as many scripts as their size asks for.
    pub async fn get(&self, keys: &[&EntryKey]) -> Result<Vec<Option<Entry>>, Error> {
        let (mut entries, mut lost) = (Vec::with_capacity(keys.len()), Vec::new());
        while entries.len() < keys.len() {
            let wanted = &keys[entries.len()..];
            for (key, found) in wanted.iter().zip(self.get_some(Party::Alone, wanted).await?) {
                match found {
                    Found::Entry(entry) => entries.push(Some(entry)),
                    Found::Nothing => entries.push(None),
                    Found::Lost => {
                        entries.push(None);
                        lost.push(*key);
                    }
                }
            }
        }
        if !lost.is_empty() {
            self.notice_lost(&lost).await;
        }
        Ok(entries)
    }

    /// Reads the first of `keys`, of any namespaces: as many as one script answers, at least one.
    pub async fn get_some(&self, party: Party, keys: &[&EntryKey]) -> Result<Vec<Found>, Error> {
        let arguments = || keys.iter().map(|key| Value::from(key.text())).collect();
        let read = |frame| {
            let mut fields = reply::array(frame)?.into_iter();
            let mut given = Vec::with_capacity(keys.len());
            while let Some(value) = fields.next() {
                let (Some(version), Some(created_at), Some(remaining)) =
                    (fields.next(), fields.next(), fields.next())
                else {
                    return Err("four fields an entry");
                };
                given.push(found([value, version, created_at, remaining])?);
            }
            if given.is_empty() || given.len() > keys.len() { Err("an entry a key") } else { Ok(given) }
        };
        self.ask_for(party, &scripts::GET, Effect::Read, arguments, read).await
    }

    /// Brings the books up to what reads saw. Whoever asked has his answer either way.
    pub async fn notice_lost(&self, keys: &[&EntryKey]) {
        let mut by_namespace: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for key in keys {
            by_namespace.entry(key.namespace()).or_default().push(key.key());
        }
        let noticed = by_namespace.into_iter().map(|(namespace, keys)| async move {
            let arguments = || [namespace].into_iter().chain(keys.iter().copied()).map(Value::from).collect();
            if let Err(error) = self.ask(&scripts::NOTICE_LOST, Effect::Write, arguments, reply::number).await {
                tracing::debug!(%error, "the books do not know yet what expired or was evicted");
            }
        });
        join_all(noticed).await;
    }

    /// Reads an entry with its metadata, as far as that is stored.
    pub async fn describe_stored(&self, key: &EntryKey) -> Result<Option<(Entry, Details)>, Error> {
        let arguments = || vec![Value::from(key.namespace()), Value::from(key.key())];
        match self.ask(&scripts::DESCRIBE, Effect::Read, arguments, described).await? {
            Described::Entry(entry, details) => Ok(Some((entry, details))),
            Described::Nothing => Ok(None),
            Described::Lost => {
                self.notice_lost(&[key]).await;
                Ok(None)
            }
        }
    }

    /// Writes entries, in as many scripts as making room asks for.
    pub async fn set(
        &self,
        grant: Grant<'_>,
        writes: &[(&EntryKey, &Write)],
    ) -> Result<Vec<Result<Stored, Error>>, Error> {
        let mut answers = Vec::with_capacity(writes.len());
        for _ in 0..MOST_ROUNDS {
            match self.set_some(Party::Alone, grant, &writes[answers.len()..]).await {
                Ok(done) => answers.extend(done),
                // What an earlier round stored is stored: only the rest has failed.
                Err(error) if !answers.is_empty() => {
                    answers.resize(writes.len(), Err(error));
                    return Ok(answers);
                }
                Err(error) => return Err(error),
            }
            if answers.len() == writes.len() {
                return Ok(answers);
            }
        }
        answers.resize(writes.len(), Err(self.overloaded()));
        Ok(answers)
    }

    /// Writes the first of `writes`, in their order: as many as one script finds or makes room for, which may be
    /// none yet.
    pub async fn set_some(
        &self,
        party: Party,
        grant: Grant<'_>,
        writes: &[(&EntryKey, &Write)],
    ) -> Result<Vec<Result<Stored, Error>>, Error> {
        let script = if grant.limit_bytes == 0 { &scripts::SET } else { &scripts::SET_WITHIN_QUOTA };
        let arguments = || {
            let mut all = Vec::with_capacity(3 + 5 * writes.len());
            all.extend([Value::from(grant.namespace), Value::from(grant.limit_bytes.to_string())]);
            all.push(Value::from_static_str(grant.policy));
            for (key, write) in writes {
                all.push(Value::from(key.key()));
                all.push(Value::from(write.value.clone()));
                all.push(match write.ttl {
                    Some(ttl) => Value::from(ttl.as_millis().to_string()),
                    None => Value::from_static_str(""),
                });
                all.push(Value::from(write.tags.joined()));
                all.push(Value::from(place::of(key.key()).to_string()));
            }
            all
        };
        let read = |frame| {
            let mut answers = reply::array(frame)?;
            let taken_out = answers.pop().ok_or("how many made room")?;
            if reply::number(taken_out)? > 0 {
                self.accesses.note_eviction();
            }
            if answers.len() != writes.len() {
                return Err("one answer an entry");
            }
            let mut done = Vec::with_capacity(answers.len());
            for answer in answers {
                done.push(match written(answer)? {
                    Written::Stored(stored) => Ok(stored),
                    Written::NoRoom => Err(Error::QuotaUsedUp),
                    Written::Refused(reason) => Err(Error::Protocol { shard: self.name.clone(), reason }),
                    Written::AskAgain => break,
                });
            }
            Ok(done)
        };
        self.ask_for(party, script, Effect::Write, arguments, read).await
    }

    /// Flushes step by step until `progress` is cancelled; counts into it, so that a failure keeps what was done.
    pub async fn flush(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        on_deleted: &(dyn for<'k> Fn(&'k str) + Sync),
        progress: &FlushProgress,
    ) -> Result<(), Error> {
        self.admit()?;
        let count = selection.step(FETCHED_PER_SCRIPT);
        let mut walked = 0;
        let mut part = self.part(namespace, selection, 0, count).await?;
        // What is written from now on stays.
        let before = part.version;
        loop {
            part.keys.retain(|key| selection.matches(key));
            part.keys = self.without_void(namespace, part.keys).await?;
            let delete = async {
                let scripts: Vec<&[String]> = part.keys.chunks(FLUSHED_PER_SCRIPT).collect();
                let mut result = Ok(());
                for pair in scripts.chunks(2) {
                    if progress.is_cancelled() {
                        break;
                    }
                    // Two at a time, so that the shard need not wait for the next; others come between.
                    let done = pair.iter().map(|keys| self.delete_older(namespace, keys, before));
                    for step in join_all(done).await {
                        match step {
                            Ok((live, gone)) => {
                                progress.add_deleted(live);
                                gone.iter().for_each(|key| on_deleted(key));
                            }
                            Err(error) => result = Err(error),
                        }
                    }
                    if result.is_err() {
                        break;
                    }
                }
                result
            };
            if part.next >= PLACES {
                delete.await?;
                progress.add_walked(PLACES.saturating_sub(walked));
                return Ok(());
            }
            // Places stay what they are, so the next part can be fetched meanwhile.
            let (done, next) = tokio::join!(delete, self.part(namespace, selection, part.next, count));
            done?;
            if progress.is_cancelled() {
                return Ok(());
            }
            progress.add_walked(part.next.saturating_sub(walked));
            walked = part.next;
            part = next?;
        }
    }

    /// Deletes those of `keys` whose version is at most `before`: how many were alive, and which
    /// are gone.
    async fn delete_older(
        &self,
        namespace: &Namespace,
        keys: &[String],
        before: u64,
    ) -> Result<(u64, Vec<String>), Error> {
        let before = before.to_string();
        let places: Vec<String> = keys.iter().map(|key| place::of(key).to_string()).collect();
        let arguments = || {
            let keys = keys.iter().zip(&places).flat_map(|(key, place)| [key.as_str(), place]);
            [namespace.as_str(), &before].into_iter().chain(keys).map(Value::from).collect()
        };
        self.ask(&scripts::FLUSH, Effect::Write, arguments, |frame| {
            let [deleted, gone] = reply::tuple(frame)?;
            Ok((reply::count(deleted)?, reply::texts(gone)?))
        })
        .await
    }

    /// Live keys from `place` on, about `count` of them; of a selection by tag those that have it, of
    /// one by pattern all.
    pub async fn part(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        place: u64,
        count: usize,
    ) -> Result<Part, Error> {
        let tag = if let Selection::Tagged(tag) = selection { tag.as_str() } else { "" };
        let (place, count) = (place.to_string(), count.to_string());
        let arguments = || [namespace.as_str(), &place, &count, tag].map(Value::from).to_vec();
        self.ask(&scripts::LIST, Effect::Read, arguments, |frame| {
            let [next, version, keys] = reply::tuple(frame)?;
            Ok(Part { next: reply::count(next)?, version: reply::count(version)?, keys: reply::texts(keys)? })
        })
        .await
    }

    /// Takes expired entries out of the books, and by `policy` those that are too many, a bounded
    /// number in each of `scripts` scripts; tells whether there may be more.
    pub async fn sweep(
        &self,
        namespace: &Namespace,
        scripts: usize,
        limit_bytes: u64,
        policy: EvictionPolicy,
    ) -> Result<bool, Error> {
        let (most, limit) = (WORK_PER_SWEEP.to_string(), limit_bytes.to_string());
        let arguments = || [namespace.as_str(), &most, &limit, policy.as_str()].map(Value::from).to_vec();
        for _ in 0..scripts {
            if self.ask(&scripts::SWEEP, Effect::Write, arguments, reply::number).await? == 0 {
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
            reachable: info.is_some() && self.belonging.is_settled(),
            used_bytes: field("used_memory").unwrap_or(0),
            limit_bytes: configured.or_else(|| field("total_system_memory")).unwrap_or(0),
        }
    }
}

/// A part of a namespace's keys.
pub struct Part {
    /// The place to go on from; [`PLACES`] at the end.
    pub next: u64,
    /// No key of this part was written with a greater one.
    pub version: u64,
    pub keys: Vec<String>,
}

/// What stands under one key.
pub enum Found {
    Entry(Entry),
    Nothing,
    /// Nothing, and the books do not know yet.
    Lost,
}

fn found(fields: [Frame; 4]) -> Result<Found, Unexpected> {
    match &fields {
        [Frame::Null, Frame::Number { data: 0, .. }, ..] => Ok(Found::Nothing),
        [Frame::Null, ..] => Ok(Found::Lost),
        _ => Ok(Found::Entry(entry(fields)?)),
    }
}

fn entry([value, version, created_at, remaining]: [Frame; 4]) -> Result<Entry, Unexpected> {
    let remaining = reply::number(remaining)?;
    Ok(Entry {
        // A reply's bytes are a slice of a read buffer, which a kept value must not pin.
        value: Bytes::copy_from_slice(&reply::bytes(value)?),
        version: Version(reply::count(version)?),
        created_at: UnixMillis(reply::count(created_at)?),
        expires_in: u64::try_from(remaining).ok().map(Duration::from_millis),
    })
}

/// What stands under one key, in detail.
enum Described {
    Entry(Entry, Details),
    Nothing,
    /// Nothing, and the books do not know yet.
    Lost,
}

fn described(frame: Frame) -> Result<Described, Unexpected> {
    match frame {
        Frame::Null => return Ok(Described::Nothing),
        Frame::Number { .. } => return Ok(Described::Lost),
        _ => {}
    }
    let [value, version, created_at, remaining, last_accessed, access_count, tags] = reply::tuple(frame)?;
    let entry = entry([value, version, created_at, remaining])?;
    let tags = reply::text(tags)?.split_terminator('\n').map(str::to_owned).collect();
    let details = Details {
        last_accessed: UnixMillis(reply::count(last_accessed)?),
        access_count: reply::count(access_count)?,
        tags: Tags::parse(tags).map_err(|_| "tags")?,
    };
    Ok(Described::Entry(entry, details))
}

/// What became of one entry of a write.
enum Written {
    Stored(Stored),
    NoRoom,
    /// Something else stands under its name.
    Refused(String),
    AskAgain,
}

fn written(frame: Frame) -> Result<Written, Unexpected> {
    let number = match frame {
        Frame::SimpleError { data, .. } => return Ok(Written::Refused(data.to_string())),
        frame => reply::number(frame)?,
    };
    let outcome = if number > 0 { Outcome::Created } else { Outcome::Replaced };
    Ok(match number {
        0 => Written::AskAgain,
        -1 => Written::NoRoom,
        number => Written::Stored(Stored { outcome, version: Version(number.unsigned_abs()) }),
    })
}
