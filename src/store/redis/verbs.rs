//! The operations of one shard. Each is a script, its arguments, and the parser of its answer.

use bytes::Bytes;
use fred::types::{Resp3Frame as Frame, Value};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::time::Duration;

use super::reply::{self, Unexpected};
use super::ring_state::SettledRecord;
use super::scripts;
use super::shard::{Effect, Refusal, Sender, Shard};
use crate::model::{
    Details, Entry, EntryKey, EvictionPolicy, Extra, Namespace, Positions, Selection, SourceVersion, Tags,
    UnixMillis, Version,
};
use crate::store::{Error, Room, Totals};

/// The work that one script of a sweep may do, in the units of `lua/prelude.lua`.
const WORK_PER_SWEEP: u64 = 100;

/// Keys, each followed by its place, as script arguments.
pub fn keys_and_places<'k>(
    settled: &'k SettledRecord,
    keys: impl Iterator<Item = &'k str> + 'k,
) -> impl Iterator<Item = Value> + 'k {
    keys.flat_map(|key| [Value::from(key), Value::from(settled.place_of(key).to_string())])
}

impl Shard {
    /// Runs a script for one operation and parses its answer with `read`.
    pub async fn ask<T>(
        &self,
        script: &scripts::Script,
        effect: Effect,
        arguments: impl Fn(&SettledRecord) -> Vec<Value> + Send + Sync,
        read: impl FnOnce(Frame) -> Result<T, Unexpected>,
    ) -> Result<T, Error> {
        self.ask_for(Sender::Alone, script, effect, arguments, read).await
    }

    /// Like [`Self::ask`], for the sender `party`. If the shard has another record now, it has executed nothing, and
    /// the script is sent once more under the new record.
    pub async fn ask_for<T>(
        &self,
        party: Sender,
        script: &scripts::Script,
        effect: Effect,
        arguments: impl Fn(&SettledRecord) -> Vec<Value> + Send + Sync,
        read: impl FnOnce(Frame) -> Result<T, Unexpected>,
    ) -> Result<T, Error> {
        self.ask_settled(party, script, effect, arguments, |frame, _| read(frame)).await
    }

    /// Like [`Self::ask_for`]. `read` also gets the record under which the script ran.
    pub async fn ask_settled<T>(
        &self,
        party: Sender,
        script: &scripts::Script,
        effect: Effect,
        arguments: impl Fn(&SettledRecord) -> Vec<Value> + Send + Sync,
        read: impl FnOnce(Frame, &SettledRecord) -> Result<T, Unexpected>,
    ) -> Result<T, Error> {
        let mut settled = self.ring_state.settled().ok_or_else(|| self.unsettled())?;
        let frame = match self.call(&settled, party, script, effect, &arguments).await {
            Err(Refusal::Fenced) => {
                // Boxed because it is rare: it must not enlarge the future of every operation.
                settled = Box::pin(self.settle_anew(&settled)).await?;
                if !settled.is_clean() {
                    // Entries that are void under the new record must be removed first.
                    return Err(self.unsettled());
                }
                // A second refusal means that the connections lead to different servers.
                let again = Box::pin(self.call(&settled, party, script, effect, &arguments)).await;
                again.inspect_err(|refusal| self.replace_if_fenced(refusal))
            }
            frame => frame,
        };
        let frame = frame.map_err(|refusal| self.error(refusal, effect))?;
        read(frame, &settled).map_err(|expected| self.unexpected(expected))
    }

    /// Runs a script under this record; `None` if the shard has another record now.
    pub async fn ask_under<T>(
        &self,
        settled: &SettledRecord,
        party: Sender,
        script: &scripts::Script,
        effect: Effect,
        arguments: impl Fn(&SettledRecord) -> Vec<Value> + Send + Sync,
        read: impl FnOnce(Frame) -> Result<T, Unexpected>,
    ) -> Result<Option<T>, Error> {
        match self.call(settled, party, script, effect, &arguments).await {
            Err(Refusal::Fenced) => Ok(None),
            Err(refusal) => Err(self.error(refusal, effect)),
            Ok(frame) => read(frame).map(Some).map_err(|expected| self.unexpected(expected)),
        }
    }

    async fn call(
        &self,
        settled: &SettledRecord,
        party: Sender,
        script: &scripts::Script,
        effect: Effect,
        arguments: &(impl Fn(&SettledRecord) -> Vec<Value> + Send + Sync),
    ) -> Result<Frame, Refusal> {
        let behind_token = || {
            let mut all = vec![Value::String(settled.token.clone())];
            all.extend(arguments(settled));
            all
        };
        self.run(script, effect, party, behind_token).await
    }

    /// The error for a Redis key of ours that holds another type.
    pub fn foreign(&self, Foreign { name, found }: Foreign) -> Error {
        self.repairs.remember_foreign(&name);
        Error::ForeignType { shard: self.name.clone(), name, found }
    }

    /// Reads entries, with as many scripts as their size requires, as long as `room` allows more. The shard must have
    /// every change up to its own `positions`.
    pub async fn get(
        &self,
        keys: &[&EntryKey],
        positions: &Positions,
        room: Room<'_>,
    ) -> Result<Vec<Result<Option<Entry>, Error>>, Error> {
        let (mut entries, mut lost) = (Vec::with_capacity(keys.len()), Vec::new());
        let mut bytes = 0;
        while entries.len() < keys.len() {
            // Once `room` has refused, it also refuses 0 bytes.
            if !room(bytes) {
                return Err(Error::Overloaded { shard: self.name.clone() });
            }
            let wanted = &keys[entries.len()..];
            let found = self.get_some_at(wanted, positions).await?;
            bytes = found.iter().map(FoundEntry::bytes).sum();
            for (key, found) in wanted.iter().zip(found) {
                entries.push(match found {
                    FoundEntry::Entry(entry) => Ok(Some(entry)),
                    FoundEntry::Nothing => Ok(None),
                    FoundEntry::Lost => {
                        lost.push(*key);
                        Ok(None)
                    }
                    FoundEntry::Foreign(foreign) => Err(self.foreign(foreign)),
                });
            }
        }
        if !room(bytes) {
            return Err(Error::Overloaded { shard: self.name.clone() });
        }
        if !lost.is_empty() {
            self.notice_lost(&lost).await;
        }
        Ok(entries)
    }

    /// Reads the first of `keys`, which may be of any namespaces: as many as one script returns, at least one.
    pub async fn get_some(&self, party: Sender, keys: &[&EntryKey]) -> Result<Vec<FoundEntry>, Error> {
        let arguments = |_: &SettledRecord| keys.iter().map(|key| Value::from(key.text())).collect();
        let read = |frame| entries(frame, keys.len());
        self.ask_for(party, &scripts::GET, Effect::Read, arguments, read).await
    }

    /// Like [`Shard::get_some`], but the shard must have every change up to its own `positions`.
    async fn get_some_at(&self, keys: &[&EntryKey], positions: &Positions) -> Result<Vec<FoundEntry>, Error> {
        let arguments = |_: &SettledRecord| keys.iter().map(|key| Value::from(key.text())).collect();
        let read = |frame| entries(frame, keys.len());
        self.ask_at([&scripts::GET, &scripts::GET_AT], Effect::Read, positions, arguments, read).await
    }

    /// Updates index and totals for entries that a read found missing. An error does not affect the read.
    pub async fn notice_lost(&self, keys: &[&EntryKey]) {
        let mut by_namespace: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for key in keys {
            by_namespace.entry(key.namespace()).or_default().push(key.key());
        }
        let noticed = by_namespace.into_iter().map(|(namespace, keys)| async move {
            let arguments =
                |settled: &SettledRecord| settled.arguments(namespace, keys.iter().copied().map(Value::from));
            if let Err(error) = self.ask(&scripts::NOTICE_LOST, Effect::Write, arguments, reply::number).await {
                tracing::debug!(%error, "index and totals still count entries that expired or were evicted");
            }
        });
        join_all(noticed).await;
    }

    /// Reads an entry with its metadata as stored on the shard, which must have every change up to its own
    /// `positions`.
    pub async fn describe_stored(
        &self,
        key: &EntryKey,
        positions: &Positions,
    ) -> Result<Option<(Entry, Details)>, Error> {
        let arguments = |_: &SettledRecord| vec![Value::from(key.namespace()), Value::from(key.key())];
        let scripts = [&scripts::DESCRIBE, &scripts::DESCRIBE_AT];
        match self.ask_at(scripts, Effect::Read, positions, arguments, described).await? {
            Described::Entry(entry, details) => Ok(Some((entry, details))),
            Described::Nothing => Ok(None),
            Described::Foreign(foreign) => Err(self.foreign(foreign)),
            Described::Lost => {
                self.notice_lost(&[key]).await;
                Ok(None)
            }
        }
    }

    /// About `count` live keys from `place` on. For a selection by tag only the keys with that tag; for a selection
    /// by pattern all keys.
    pub async fn part(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        place: u64,
        count: usize,
    ) -> Result<Part, Error> {
        let (place, count, tag) = (place.to_string(), count.to_string(), tag_of(selection));
        let arguments = |settled: &SettledRecord| {
            let rest = [place.as_str(), &count, tag].map(Value::from);
            settled.arguments(namespace.as_str(), rest)
        };
        let part = self.ask(&scripts::LIST, Effect::Read, arguments, |frame| {
            let fields = reply::array(frame)?;
            if fields.len() == 2 {
                return Ok(Err(foreign(fields)?));
            }
            let [next, version, keys, is_whole]: [Frame; 4] = fields.try_into().map_err(|_| "four fields")?;
            Ok(Ok(Part {
                next: reply::count(next)?,
                version: reply::count(version)?,
                keys: reply::texts(keys)?,
                index: match reply::count(is_whole)? {
                    0 => Index::Lost,
                    1 => Index::Whole,
                    _ => Index::InRepair,
                },
            }))
        });
        part.await?.map_err(|foreign| self.foreign(foreign))
    }

    /// Removes expired entries, and evicts by `policy` while the namespace is over its limit, in one script.
    pub async fn sweep(
        &self,
        namespace: &Namespace,
        limit_bytes: u64,
        policy: EvictionPolicy,
    ) -> Result<Swept, Error> {
        let (most, limit) = (WORK_PER_SWEEP.to_string(), limit_bytes.to_string());
        let arguments = |settled: &SettledRecord| {
            let rest = [most.as_str(), &limit, policy.as_str()].map(Value::from);
            settled.arguments(namespace.as_str(), rest)
        };
        self.ask_for(Sender::Upkeep, &scripts::SWEEP, Effect::Write, arguments, |frame| {
            let [more, repair, dropped] = reply::tuple(frame)?;
            self.count_dropped_tombstones(dropped)?;
            Ok(Swept { has_more: reply::count(more)? > 0, is_in_repair: reply::count(repair)? > 0 })
        })
        .await
    }

    pub async fn totals(&self, namespace: &Namespace) -> Result<Totals, Error> {
        self.totals_for(Sender::Alone, namespace).await
    }

    pub async fn totals_for(&self, party: Sender, namespace: &Namespace) -> Result<Totals, Error> {
        let arguments = |_: &SettledRecord| vec![Value::from(namespace.as_str())];
        let totals = self.ask_for(party, &scripts::TOTALS, Effect::Read, arguments, |frame| {
            let fields = reply::array(frame)?;
            if fields.len() == 2 {
                return Ok(Err(foreign(fields)?));
            }
            let fields = fields.into_iter().map(reply::count).collect::<Result<Vec<_>, _>>()?;
            let [hits, misses, keys, bytes, charged, evictions, redis_evictions, expirations, unswept, repair] =
                fields.try_into().map_err(|_| "ten numbers")?;
            Ok(Ok(Totals {
                hits,
                misses,
                keys,
                bytes,
                charged,
                evictions,
                redis_evictions,
                expirations,
                unswept,
                is_in_repair: repair > 0,
            }))
        });
        totals.await?.map_err(|foreign| self.foreign(foreign))
    }
}

/// A part of a namespace's keys.
pub struct Part {
    /// The place to continue from; `place::PLACES` at the end.
    pub next: u64,
    /// No key of this part was written with a greater version.
    pub version: u64,
    pub keys: Vec<String>,
    pub index: Index,
}

/// The state of an index, as far as this part of it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    Whole,
    /// A part of the index is missing, and no repair has begun.
    Lost,
    /// A repair is looking for the entries.
    InRepair,
}

/// The result of a sweep.
pub struct Swept {
    pub has_more: bool,
    /// Whether part of the index was lost and the entries must be found again.
    pub is_in_repair: bool,
}

/// The tag of a selection; empty if it does not select by tag.
pub fn tag_of(selection: &Selection) -> &str {
    if let Selection::Tagged(tag) = selection { tag.as_str() } else { "" }
}

/// A Redis key of ours that holds another type.
#[derive(Debug)]
pub struct Foreign {
    pub name: String,
    pub found: String,
}

pub fn foreign(fields: Vec<Frame>) -> Result<Foreign, Unexpected> {
    let [name, found]: [Frame; 2] = fields.try_into().map_err(|_| "a name and a type")?;
    Ok(Foreign { name: reply::text(name)?, found: reply::text(found)? })
}

/// The entries in the answer of a script that reads: at least one, at most `most`.
fn entries(frame: Frame, most: usize) -> Result<Vec<FoundEntry>, Unexpected> {
    let mut fields = reply::array(frame)?.into_iter();
    let mut given = Vec::with_capacity(most);
    while let Some(value) = fields.next() {
        let (Some(version), Some(created_at), Some(remaining)) = (fields.next(), fields.next(), fields.next()) else {
            return Err("four fields per entry");
        };
        given.push(found([value, version, created_at, remaining])?);
    }
    if given.is_empty() || given.len() > most { Err("one entry per key") } else { Ok(given) }
}

/// What a shard holds for one key.
pub enum FoundEntry {
    Entry(Entry),
    Nothing,
    /// There is no entry, but index and totals still count one.
    Lost,
    Foreign(Foreign),
}

impl FoundEntry {
    /// The size of the value.
    pub fn bytes(&self) -> usize {
        if let Self::Entry(entry) = self { entry.value.len() } else { 0 }
    }
}

/// Parses the four fields of an entry.
pub fn found(fields: [Frame; 4]) -> Result<FoundEntry, Unexpected> {
    match &fields {
        [Frame::Null, Frame::Number { data: 0, .. }, ..] => Ok(FoundEntry::Nothing),
        [Frame::Null, Frame::Number { data: 1, .. }, ..] => Ok(FoundEntry::Lost),
        [Frame::Null, ..] => {
            let [_, _, name, found] = fields;
            Ok(FoundEntry::Foreign(foreign(vec![name, found])?))
        }
        _ => Ok(FoundEntry::Entry(entry(fields)?)),
    }
}

fn entry([value, version, created_at, remaining]: [Frame; 4]) -> Result<Entry, Unexpected> {
    let Remaining { expires_in, overdue, extra } = remaining_of(remaining)?;
    Ok(Entry {
        // Copied, because a reply is a slice of a read buffer, which a kept value would keep in memory.
        value: Bytes::copy_from_slice(&reply::bytes(value)?),
        version: Version(reply::count(version)?),
        created_at: UnixMillis(reply::count(created_at)?),
        expires_in,
        overdue,
        extra,
    })
}

/// What is left of an entry's freshness.
struct Remaining {
    expires_in: Option<Duration>,
    overdue: Option<Duration>,
    extra: Extra,
}

/// Parses what is left of an entry's freshness: a number of ms, -1 for ever; or a text if the entry has more than
/// that, see `lua/get.lua`.
fn remaining_of(frame: Frame) -> Result<Remaining, Unexpected> {
    if let Frame::Number { data, .. } = frame {
        let expires_in = u64::try_from(data).ok().map(Duration::from_millis);
        return Ok(Remaining { expires_in, overdue: None, extra: Extra::default() });
    }
    let text = reply::text(frame)?;
    let (remaining, extra) = text.split_once(' ').ok_or("two words or more")?;
    let extra = Extra::parse(extra).ok_or("the field `extra`")?;
    if remaining == "never" {
        return Ok(Remaining { expires_in: None, overdue: None, extra });
    }
    let remaining: i64 = remaining.parse().map_err(|_| "ms that remain")?;
    let overdue = (remaining <= 0).then(|| Duration::from_millis(remaining.unsigned_abs()));
    let expires_in = Some(Duration::from_millis(remaining.try_into().unwrap_or(0)));
    Ok(Remaining { expires_in, overdue, extra })
}

/// What a shard holds for one key, with details.
enum Described {
    Entry(Entry, Details),
    Nothing,
    /// There is no entry, but index and totals still count one.
    Lost,
    Foreign(Foreign),
}

fn described(frame: Frame) -> Result<Described, Unexpected> {
    let fields = match frame {
        Frame::Null => return Ok(Described::Nothing),
        Frame::Number { .. } => return Ok(Described::Lost),
        frame => reply::array(frame)?,
    };
    if fields.len() == 2 {
        return Ok(Described::Foreign(foreign(fields)?));
    }
    let [value, version, created_at, remaining, last_accessed, access_count, tags, source_version]: [Frame; 8] =
        fields.try_into().map_err(|_| "eight fields")?;
    let entry = entry([value, version, created_at, remaining])?;
    let tags = reply::text(tags)?.split_terminator('\n').map(str::to_owned).collect();
    let details = Details {
        last_accessed: UnixMillis(reply::count(last_accessed)?),
        access_count: reply::count(access_count)?,
        tags: Tags::parse(tags).map_err(|_| "tags")?,
        source_version: SourceVersion::parse(&reply::text(source_version)?).ok(),
    };
    Ok(Described::Entry(entry, details))
}
