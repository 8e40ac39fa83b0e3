//! Commands about keys, whatever their values are: deleting, listing, flushing.

use tokio::time::Instant;

use super::command::Call;
use super::connect::{no_subcommand, unsigned};
use super::failure::{Answer, Failure, NO_MEMORY_FOR_REPLY, NO_SUCH_KEY, SYNTAX};
use super::strings::{read, shown};
use crate::cache::{Flushed, Listing};
use crate::clock::unix_millis;
use crate::jobs::{Flush, Kind as JobKind, Patience};
use crate::model::{EntryKey, Namespace, Operation, Origin, ReadTerms, Selection, glob, key_bytes};
use crate::store::Cursor;
use crate::trace;

/// The keys of one page of KEYS, and the least and the most of one SCAN.
const PAGE: usize = 1000;
const LEAST_SCANNED: usize = 16;

/// What SCAN returns if COUNT is not given, as in Redis.
const SCANNED: usize = 10;

pub async fn del(call: &mut Call<'_>) -> Answer {
    let namespace = call.session.namespace().clone();
    let keys = call.request.from(1).map(|key| call.key_of(key)).collect::<Result<Vec<EntryKey>, Failure>>()?;
    let mut deleted = 0;
    for keys in keys.chunks(call.door.cache.max_batch_keys()) {
        let answer = call.door.cache.mdelete(&namespace, keys.to_vec()).await?;
        if let Some((_, error)) = answer.failed.into_iter().next() {
            return Err(error.into());
        }
        deleted += answer.deleted;
    }
    call.reply.count(deleted);
    Ok(())
}

/// EXISTS and TOUCH: how many of the keys exist; a key that is named twice counts twice.
pub async fn exists(call: &mut Call<'_>) -> Answer {
    let mut found = 0;
    for index in 1..call.len() {
        found += i64::from(read(call, index, Operation::Head).await?.is_some());
    }
    call.reply.integer(found);
    Ok(())
}

pub async fn type_of(call: &mut Call<'_>) -> Answer {
    let is_there = read(call, 1, Operation::Head).await?.is_some();
    call.reply.simple(if is_there { "string" } else { "none" });
    Ok(())
}

pub async fn object(call: &mut Call<'_>) -> Answer {
    let word = call.argument(1).to_ascii_lowercase();
    if !matches!((&*word, call.len()), (b"encoding" | b"freq" | b"idletime" | b"refcount", 3)) {
        return Err(no_subcommand("OBJECT", call.argument(1)));
    }
    let (lookup, details) = call.door.cache.describe(&call.key(2)?, &ReadTerms::default(), Operation::Head).await?;
    let (Some(entry), Some(details)) = (shown(lookup.entry), details) else {
        return Err(NO_SUCH_KEY);
    };
    match &*word {
        b"encoding" => call.reply.bulk(encoding(&entry.value).as_bytes()),
        b"freq" => call.reply.count(details.access_count.min(255)),
        b"idletime" => call.reply.count(unix_millis().0.saturating_sub(details.last_accessed.0) / 1000),
        _ => call.reply.integer(1),
    }
    Ok(())
}

/// What Redis would call the encoding of such a value.
fn encoding(value: &[u8]) -> &'static str {
    const EMBEDDED: usize = 44;
    match value {
        value if super::decode::integer(value).is_some() => "int",
        value if value.len() <= EMBEDDED => "embstr",
        _ => "raw",
    }
}

pub async fn dbsize(call: &mut Call<'_>) -> Answer {
    let totals = call.door.cache.stats(call.session.namespace()).await?;
    call.reply.count(totals.keys);
    Ok(())
}

pub async fn scan(call: &mut Call<'_>) -> Answer {
    let cursor = unsigned(call.argument(1)).map_err(|_| Failure::err("invalid cursor"))?;
    let (mut pattern, mut count, mut is_of_strings, mut at) = (None, SCANNED, true, 2);
    while at < call.len() {
        let value = (at + 1 < call.len()).then(|| call.argument(at + 1)).ok_or(SYNTAX)?;
        if call.is(at, "MATCH") {
            pattern = Some(value);
        } else if call.is(at, "COUNT") {
            count = usize::try_from(call.integer(at + 1)?).ok().filter(|count| *count > 0).ok_or(SYNTAX)?;
        } else if call.is(at, "TYPE") {
            is_of_strings = value.eq_ignore_ascii_case(b"string");
        } else {
            return Err(SYNTAX);
        }
        at += 2;
    }
    let (next, mut keys) = page(call, position(cursor).map(Cursor::at), count.clamp(LEAST_SCANNED, PAGE)).await?;
    if next.as_ref().is_some_and(|next| keys.len() > 1 && keys.last() == Some(&next.after)) {
        // A number has no room for the key at which this page ends. The next page begins with that key's place, and
        // lists the key.
        keys.pop();
    }
    let is_wanted = |key: &&String| is_of_strings && pattern.is_none_or(|pattern| glob(pattern, &key_bytes(key)));
    let keys: Vec<&String> = keys.iter().filter(is_wanted).collect();
    call.reply.array(2);
    call.reply.bulk(next.map_or(0, |next| number(next.place)).to_string().as_bytes());
    call.reply.array(keys.len());
    keys.into_iter().for_each(|key| call.reply.bulk(&key_bytes(key)));
    Ok(())
}

/// The cursor of a listing as a number: the place, one higher, because 0 is the start and the end.
fn number(place: u64) -> u64 {
    place.saturating_add(1)
}

/// The place of a number.
fn position(number: u64) -> Option<u64> {
    number.checked_sub(1)
}

/// One page of the selected namespace's keys, and where the next one starts.
async fn page(
    call: &Call<'_>,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<(Option<Cursor>, Vec<String>), Failure> {
    let listing = Listing { selection: Selection::All, cursor: cursor.map(|cursor| cursor.encode()), limit };
    let mut page = call.door.cache.list(call.session.namespace(), &listing).await?;
    match page.failed.pop() {
        Some(error) => Err(error.into()),
        None => Ok((page.next, page.keys)),
    }
}

pub async fn keys(call: &mut Call<'_>) -> Answer {
    let pattern = call.argument(1);
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let (next, keys) = page(call, cursor, PAGE).await?;
        for key in keys {
            let bytes = key_bytes(&key);
            if glob(pattern, &bytes) {
                // A key and its place in the reply.
                call.session.memory.take(2 * bytes.len() + 64).map_err(|_| NO_MEMORY_FOR_REPLY)?;
                found.push(bytes.into_owned());
            }
        }
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    call.reply.array(found.len());
    found.iter().for_each(|key| call.reply.bulk(key));
    Ok(())
}

/// Flushes the selected namespace.
pub async fn flushdb(call: &mut Call<'_>) -> Answer {
    let namespace = call.session.namespace().clone();
    flush(call, vec![namespace]).await
}

/// Flushes the namespaces of all named databases and the selected one; after AUTH only the one of the client.
pub async fn flushall(call: &mut Call<'_>) -> Answer {
    let mut namespaces = vec![call.session.namespace().clone()];
    if !call.session.is_named() {
        let databases = &call.door.databases;
        namespaces.extend(databases.numbers().filter_map(|number| databases.namespace(number)));
        namespaces.sort_unstable();
        namespaces.dedup();
    }
    flush(call, namespaces).await
}

async fn flush(call: &mut Call<'_>, namespaces: Vec<Namespace>) -> Answer {
    let is_async = match call.len() {
        1 => false,
        2 if call.is(1, "ASYNC") => true,
        2 if call.is(1, "SYNC") => false,
        _ => return Err(SYNTAX),
    };
    let request_id =
        trace::with(|caller| caller.map(|caller| String::from_utf8_lossy(caller.request_id()).into_owned()));
    let origin = Origin::new(call.session.client.address.ip(), None, &request_id.unwrap_or_default());
    let end = Instant::now() + call.door.request_timeout * 9 / 10;
    for namespace in namespaces {
        let patience = if is_async { Patience::None } else { Patience::Until(end) };
        let (kind, selection, origin) = (JobKind::Flush, Selection::All, origin.clone());
        let flush = Flush { kind, namespace, selection, origin };
        let flushed = call.door.cache.flush(flush, patience, call.door.failure).await?;
        if let (Flushed::Job(job), false) = (flushed, is_async) {
            return Err(Failure::err(format!("the flush takes long and goes on as the job {}", job.id)));
        }
    }
    call.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_a_number_that_is_never_zero() {
        assert_eq!((position(0), position(number(0)), position(number(7))), (None, Some(0), Some(7)));
    }

    #[test]
    fn values_have_the_encoding_that_redis_would_give_them() {
        assert_eq!((encoding(b"12"), encoding(b"012"), encoding(&[0; 45])), ("int", "embstr", "raw"));
    }
}
