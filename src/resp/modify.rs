//! Commands that change a value depending on the old one: counters, APPEND, SETRANGE. They keep the time to live and
//! the tags of the entry.

use bytes::{Bytes, BytesMut};

use super::command::Call;
use super::decode::integer;
use super::failure::{Answer, Failure, NOT_AN_INTEGER, TOO_LONG};
use super::strings::offset;
use crate::cache::{Change, Lifetime, Put};
use crate::model::{Details, Entry, Kind, Operation};

pub async fn incr(call: &mut Call<'_>) -> Answer {
    add(call, 1).await
}

pub async fn decr(call: &mut Call<'_>) -> Answer {
    add(call, -1).await
}

pub async fn incrby(call: &mut Call<'_>) -> Answer {
    let by = call.integer(2)?;
    add(call, by).await
}

pub async fn decrby(call: &mut Call<'_>) -> Answer {
    let by = call.integer(2)?.checked_neg().ok_or_else(|| Failure::err("decrement would overflow"))?;
    add(call, by).await
}

/// Adds to a number; an absent entry is 0.
async fn add(call: &mut Call<'_>, by: i64) -> Answer {
    let sum = |value: &[u8]| {
        let number = if value.is_empty() { None } else { integer(value) };
        let number = number.ok_or(NOT_AN_INTEGER)?;
        number.checked_add(by).ok_or_else(|| Failure::err("increment or decrement would overflow"))
    };
    let decide = |present: Option<(&Entry, &Details)>| match sum(present.map_or(b"0", |(entry, _)| &entry.value)) {
        // A number is JSON as well, so the kind stays.
        Ok(sum) => (put(present, sum.to_string().into(), present.map(|(entry, _)| entry.extra.kind)), Ok(sum)),
        Err(failure) => (Change::Nothing, Err(failure)),
    };
    let sum = call.door.cache.update(&call.key(1)?, Operation::Set, decide).await??;
    call.reply.integer(sum);
    Ok(())
}

pub async fn append(call: &mut Call<'_>) -> Answer {
    let more = call.argument(2);
    let decide = |present: Option<(&Entry, &Details)>| {
        let value = [present.map_or(b"".as_slice(), |(entry, _)| &entry.value), more].concat();
        let len = value.len();
        (put(present, value.into(), None), len)
    };
    let len = call.door.cache.update(&call.key(1)?, Operation::Set, decide).await?;
    call.reply.count(len);
    Ok(())
}

pub async fn setrange(call: &mut Call<'_>) -> Answer {
    let (start, more) = (offset(call, 2)?, call.argument(3));
    let end = start.saturating_add(more.len());
    if end > call.door.max_value_bytes && !more.is_empty() {
        return Err(TOO_LONG);
    }
    let decide = |present: Option<(&Entry, &Details)>| {
        let old = present.map_or(b"".as_slice(), |(entry, _)| &entry.value);
        if more.is_empty() {
            return (Change::Nothing, old.len());
        }
        let mut value = BytesMut::from(old);
        value.resize(old.len().max(end), 0);
        value[start..end].copy_from_slice(more);
        let len = value.len();
        (put(present, value.freeze(), None), len)
    };
    let len = call.door.cache.update(&call.key(1)?, Operation::Set, decide).await?;
    call.reply.count(len);
    Ok(())
}

/// A new value for the present entry. Without a kind it is bytes.
fn put(present: Option<(&Entry, &Details)>, value: Bytes, kind: Option<Kind>) -> Change {
    let tags = present.map(|(_, details)| details.tags.clone()).unwrap_or_default();
    Change::Put(Put { value, kind: kind.unwrap_or(Kind::Bytes), lifetime: Lifetime::Keep, tags })
}
