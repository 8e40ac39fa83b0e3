//! Commands that read and write values.
//!
//! A value is bytes. A write of a Redis client marks its entry as bytes; a read returns the stored bytes of an entry,
//! whoever wrote it. What reads and writes in one step goes through [`crate::cache::Cache::update`].

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;

use super::command::Call;
use super::expiry::{Expiry, Unit, positive};
use super::failure::{Answer, Failure, NO_MEMORY_FOR_REPLY, NOT_AN_INTEGER, SYNTAX};
use crate::cache::{self, Change, Fetched, Lifetime, Put, Wanted};
use crate::model::{
    Details, Entry, EntryKey, EntryRef, EtagList, KeyRef, Kind, Operation, Preconditions, ReadTerms, Tags, Write,
};
use crate::store;
use crate::trace;

/// Replies of at least this many bytes take memory from the budget for answers.
const COUNTED_FROM: usize = 16 * 1024;

thread_local! {
    static KEY: RefCell<String> = const { RefCell::new(String::new()) };
}

/// An entry that was read, as Redis clients see it: a known absence is no entry.
pub fn shown<V>(entry: Option<Entry<V>>) -> Option<Entry<V>> {
    entry.filter(|entry| !entry.is_known_absent())
}

/// GET from memory: `None` if the entry must be fetched, or is large.
pub fn get_now(call: &mut Call<'_>) -> Option<Answer> {
    KEY.with_borrow_mut(|text| {
        let key = match KeyRef::of_bytes(call.session.namespace(), call.argument(1), text) {
            Ok(key) => key,
            Err(error) => return Some(Err(error.into())),
        };
        let caller = call.door.caller(call.session.client.address.ip());
        let (cache, reply, now) = (&call.door.cache, &mut *call.reply, call.now);
        let show = |found: Option<EntryRef<'_>>, _: &_| match shown(found) {
            Some(entry) => reply.bulk(entry.value),
            None => reply.null(),
        };
        trace::scope_sync(caller, || cache.get_without_waiting(key, now, Wanted::Any, show)).map(Ok)
    })
}

pub async fn get(call: &mut Call<'_>) -> Answer {
    let entry = read(call, 1, Operation::Get).await?;
    put_value(call, entry.map(|entry| entry.value))
}

/// The entry of the key in the argument at `index`.
pub async fn read(call: &Call<'_>, index: usize, operation: Operation) -> Result<Option<Entry>, Failure> {
    let key = call.key(index)?;
    let lookup = call.door.cache.get(&key, &ReadTerms::default(), operation).await?;
    Ok(shown(lookup.entry))
}

/// Replies with a value, or with its absence.
pub fn put_value(call: &mut Call<'_>, value: Option<Bytes>) -> Answer {
    let Some(value) = value else {
        call.reply.null();
        return Ok(());
    };
    if value.len() >= COUNTED_FROM {
        call.session.memory.take(value.len()).map_err(|_| NO_MEMORY_FOR_REPLY)?;
    }
    call.reply.bulk(&value);
    Ok(())
}

/// Replies with the value before a change. Memory is not asked for, because the change is done.
pub fn put_old_value(call: &mut Call<'_>, value: Option<Bytes>) -> Answer {
    match value {
        Some(value) => call.reply.bulk(&value),
        None => call.reply.null(),
    }
    Ok(())
}

pub async fn mget(call: &mut Call<'_>) -> Answer {
    let namespace = call.session.namespace().clone();
    let keys = call.request.from(1).map(|key| call.key_of(key)).collect::<Result<Vec<EntryKey>, Failure>>()?;
    call.reply.array(keys.len());
    for keys in keys.chunks(call.door.cache.max_batch_keys()) {
        let (memory, is_refused) = (&call.session.memory, AtomicBool::new(false));
        // After a refusal, nothing more is admitted.
        let room = |bytes: usize| {
            let is_admitted = !is_refused.load(Relaxed) && memory.take(bytes).is_ok();
            is_refused.store(!is_admitted, Relaxed);
            is_admitted
        };
        let answer = call.door.cache.mget(&namespace, keys.to_vec(), &ReadTerms::default(), None, &room).await?;
        let mut found = HashMap::with_capacity(answer.results.len());
        for (key, fetched) in answer.results {
            let entry = match fetched {
                Fetched::Hit(entry) | Fetched::Stale(entry) => shown(Some(entry)),
                Fetched::Miss | Fetched::Leased(_) => None,
                Fetched::Failed(error) => return Err(error.into()),
            };
            found.insert(key, entry);
        }
        let mut has_memory = HashSet::with_capacity(found.len());
        for key in keys {
            let value = found.get(key).and_then(Option::as_ref).map(|entry| &entry.value);
            // A key that is named again was read once.
            if !has_memory.insert(key) {
                call.session.memory.take(value.map_or(0, Bytes::len)).map_err(|_| NO_MEMORY_FOR_REPLY)?;
            }
            match value {
                Some(value) => call.reply.bulk(value),
                None => call.reply.null(),
            }
        }
    }
    Ok(())
}

pub async fn mset(call: &mut Call<'_>) -> Answer {
    if call.len().is_multiple_of(2) {
        return Err(Failure::err("wrong number of arguments for 'mset' command"));
    }
    let namespace = call.session.namespace().clone();
    let mut writes = Vec::with_capacity(call.len() / 2);
    for index in (1..call.len()).step_by(2) {
        writes.push((call.key(index)?, bytes_write(call.argument(index + 1))));
    }
    for writes in writes.chunks(call.door.cache.max_batch_keys()) {
        let answer = call.door.cache.mset(&namespace, writes.to_vec()).await?;
        if let Some((_, error)) = answer.failed.into_iter().next() {
            return Err(error.into());
        }
    }
    call.reply.ok();
    Ok(())
}

fn bytes_write(value: &[u8]) -> Write {
    Write { value: Bytes::copy_from_slice(value), kind: Kind::Bytes, ..Write::default() }
}

/// The options of SET.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SetOptions {
    condition: Option<Condition>,
    /// Reply with the old value.
    gets: bool,
    keeps_ttl: bool,
    expiry: Option<Expiry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// Only if there is no entry.
    Absent,
    /// Only if there is one.
    Present,
}

impl SetOptions {
    fn parse(call: &Call<'_>) -> Result<Self, Failure> {
        let (mut options, mut at) = (Self::default(), 3);
        while at < call.len() {
            let has_ttl = options.keeps_ttl || options.expiry.is_some();
            if call.is(at, "NX") && options.condition != Some(Condition::Present) {
                options.condition = Some(Condition::Absent);
            } else if call.is(at, "XX") && options.condition != Some(Condition::Absent) {
                options.condition = Some(Condition::Present);
            } else if call.is(at, "GET") {
                options.gets = true;
            } else if call.is(at, "KEEPTTL") && options.expiry.is_none() {
                options.keeps_ttl = true;
            } else if let Some(unit) = Unit::of_option(call.argument(at)).filter(|_| !has_ttl && at + 1 < call.len())
            {
                options.expiry = Some(positive(call.argument(at + 1), unit, "set")?);
                at += 1;
            } else {
                return Err(SYNTAX);
            }
            at += 1;
        }
        Ok(options)
    }

    fn lifetime(self) -> Lifetime {
        match self.expiry {
            Some(Expiry::In(ttl)) => Lifetime::For(ttl),
            _ if self.keeps_ttl => Lifetime::Keep,
            _ => Lifetime::Default,
        }
    }
}

pub async fn set(call: &mut Call<'_>) -> Answer {
    let options = SetOptions::parse(call)?;
    let (key, value) = (call.key(1)?, call.argument(2));
    let old = if options.gets || options.keeps_ttl || options.expiry == Some(Expiry::Past) {
        set_with_old(call, &key, value, options).await?
    } else {
        SetResult { is_set: set_plainly(call, &key, value, options).await?, old: None }
    };
    if options.gets {
        return put_old_value(call, old.old);
    }
    if old.is_set {
        call.reply.ok();
    } else {
        call.reply.null();
    }
    Ok(())
}

/// SET without anything that depends on the old value, except whether there is one. Returns whether it was set.
async fn set_plainly(call: &Call<'_>, key: &EntryKey, value: &[u8], options: SetOptions) -> Result<bool, Failure> {
    let preconditions = options.condition.map(|condition| {
        Box::new(match condition {
            Condition::Absent => Preconditions { if_none_match: Some(EtagList::Any), ..Preconditions::default() },
            Condition::Present => Preconditions { if_match: Some(EtagList::Any), ..Preconditions::default() },
        })
    });
    let ttl = match options.expiry {
        Some(Expiry::In(ttl)) => Some(ttl),
        _ => None,
    };
    let write = Write { ttl, preconditions, ..bytes_write(value) };
    match call.door.cache.set(key, write).await {
        Ok(_) => Ok(true),
        Err(cache::Error::Store(store::Error::PreconditionFailed { .. })) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What SET did, and the old value.
struct SetResult {
    is_set: bool,
    old: Option<Bytes>,
}

async fn set_with_old(
    call: &Call<'_>,
    key: &EntryKey,
    value: &[u8],
    options: SetOptions,
) -> Result<SetResult, Failure> {
    let value = Bytes::copy_from_slice(value);
    let decide = |present: Option<(&Entry, &Details)>| {
        let is_set = match options.condition {
            None => true,
            Some(Condition::Absent) => present.is_none(),
            Some(Condition::Present) => present.is_some(),
        };
        let change = if !is_set {
            Change::Nothing
        } else if options.expiry == Some(Expiry::Past) {
            Change::Delete
        } else {
            Change::Put(bytes_put(value.clone(), options.lifetime()))
        };
        (change, SetResult { is_set, old: present.map(|(entry, _)| entry.value.clone()) })
    };
    Ok(call.door.cache.update(key, Operation::Set, decide).await?)
}

fn bytes_put(value: Bytes, lifetime: Lifetime) -> Put {
    Put { value, kind: Kind::Bytes, lifetime, tags: Tags::default() }
}

pub async fn setnx(call: &mut Call<'_>) -> Answer {
    let (key, value) = (call.key(1)?, call.argument(2));
    let options = SetOptions { condition: Some(Condition::Absent), ..SetOptions::default() };
    let is_set = set_plainly(call, &key, value, options).await?;
    call.reply.integer(is_set.into());
    Ok(())
}

pub async fn setex(call: &mut Call<'_>) -> Answer {
    set_with_ttl(call, Unit { millis: 1000, is_absolute: false }, "setex").await
}

pub async fn psetex(call: &mut Call<'_>) -> Answer {
    set_with_ttl(call, Unit { millis: 1, is_absolute: false }, "psetex").await
}

async fn set_with_ttl(call: &mut Call<'_>, unit: Unit, command: &str) -> Answer {
    let expiry = Some(positive(call.argument(2), unit, command)?);
    let (key, value) = (call.key(1)?, call.argument(3));
    set_plainly(call, &key, value, SetOptions { expiry, ..SetOptions::default() }).await?;
    call.reply.ok();
    Ok(())
}

pub async fn getset(call: &mut Call<'_>) -> Answer {
    let key = call.key(1)?;
    let old = set_with_old(call, &key, call.argument(2), SetOptions::default()).await?.old;
    put_old_value(call, old)
}

pub async fn getdel(call: &mut Call<'_>) -> Answer {
    let key = call.key(1)?;
    let decide = |present: Option<(&Entry, &Details)>| match present {
        Some((entry, _)) => (Change::Delete, Some(entry.value.clone())),
        None => (Change::Nothing, None),
    };
    let old = call.door.cache.update(&key, Operation::Delete, decide).await?;
    put_old_value(call, old)
}

pub async fn strlen(call: &mut Call<'_>) -> Answer {
    let entry = read(call, 1, Operation::Head).await?;
    call.reply.count(entry.map_or(0, |entry| entry.value.len()));
    Ok(())
}

pub async fn getrange(call: &mut Call<'_>) -> Answer {
    let (start, end) = (call.integer(2)?, call.integer(3)?);
    let value = read(call, 1, Operation::Get).await?.map(|entry| entry.value).unwrap_or_default();
    put_value(call, Some(range(&value, start, end)))
}

/// The bytes from `start` to `end`, both included; negative numbers count from the end.
fn range(value: &Bytes, start: i64, end: i64) -> Bytes {
    let len = i64::try_from(value.len()).unwrap_or(i64::MAX);
    let from_end = |index: i64| if index < 0 { (len + index).max(0) } else { index };
    if start < 0 && end < 0 && start > end {
        return Bytes::new();
    }
    let (start, end) = (from_end(start), from_end(end).min(len - 1));
    if start > end { Bytes::new() } else { value.slice(start as usize..=end as usize) }
}

/// A number of bytes from the start of a value, for SETRANGE.
pub fn offset(call: &Call<'_>, index: usize) -> Result<usize, Failure> {
    let offset = call.integer(index)?;
    usize::try_from(offset)
        .map_err(|_| if offset < 0 { Failure::err("offset is out of range") } else { NOT_AN_INTEGER })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_redis() {
        let value = Bytes::from_static(b"This is a string");
        for (start, end, expected) in [
            (0, 3, "This"),
            (-3, -1, "ing"),
            (0, -1, "This is a string"),
            (10, 100, "string"),
            (5, 3, ""),
            (100, 200, ""),
            (-100, 3, "This"),
            (-1, -3, ""),
            (i64::MIN, i64::MAX, "This is a string"),
        ] {
            assert_eq!(range(&value, start, end), expected, "{start} {end}");
        }
        assert!(range(&Bytes::new(), 0, -1).is_empty());
    }
}
