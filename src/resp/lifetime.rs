//! Commands about the time to live of entries. A change of it makes no new version.

use std::time::Duration;

use super::command::Call;
use super::expiry::{Expiry, Unit, expiry, positive};
use super::failure::{Answer, Failure, SYNTAX, shown};
use super::strings::{get, put_old_value, read};
use crate::cache::Change;
use crate::clock::unix_micros;
use crate::model::{Details, Entry, Operation, Patch, TtlChange};

pub async fn ttl(call: &mut Call<'_>) -> Answer {
    time_left(call, |left| (millis(left) + 500) / 1000).await
}

pub async fn pttl(call: &mut Call<'_>) -> Answer {
    time_left(call, millis).await
}

pub async fn expiretime(call: &mut Call<'_>) -> Answer {
    time_left(call, |left| (end(left) + 500) / 1000).await
}

pub async fn pexpiretime(call: &mut Call<'_>) -> Answer {
    time_left(call, end).await
}

fn millis(left: Duration) -> i64 {
    i64::try_from(left.as_millis()).unwrap_or(i64::MAX / 2)
}

/// The date in ms at which this time is over. Both parts are added in µs: rounded before, the same end would be shown
/// as one of two numbers.
fn end(left: Duration) -> i64 {
    let micros = u128::from(unix_micros()) + left.as_micros();
    i64::try_from(micros / 1000).unwrap_or(i64::MAX / 2)
}

/// -2 if there is no entry, -1 if it never expires.
async fn time_left(call: &mut Call<'_>, show: fn(Duration) -> i64) -> Answer {
    let entry = read(call, 1, Operation::Head).await?;
    call.reply.integer(match entry.map(|entry| entry.expires_in) {
        None => -2,
        Some(None) => -1,
        Some(Some(left)) => show(left),
    });
    Ok(())
}

pub async fn expire(call: &mut Call<'_>) -> Answer {
    set_expiry(call, Unit { millis: 1000, is_absolute: false }, "expire").await
}

pub async fn pexpire(call: &mut Call<'_>) -> Answer {
    set_expiry(call, Unit { millis: 1, is_absolute: false }, "pexpire").await
}

pub async fn expireat(call: &mut Call<'_>) -> Answer {
    set_expiry(call, Unit { millis: 1000, is_absolute: true }, "expireat").await
}

pub async fn pexpireat(call: &mut Call<'_>) -> Answer {
    set_expiry(call, Unit { millis: 1, is_absolute: true }, "pexpireat").await
}

/// The conditions of EXPIRE.
#[derive(Clone, Copy, Debug, Default)]
struct ExpireOptions {
    /// Only if the entry never expires.
    nx: bool,
    /// Only if it expires.
    xx: bool,
    /// Only if the new time is later, or earlier. Never is the latest time.
    gt: bool,
    lt: bool,
}

impl ExpireOptions {
    fn parse(call: &Call<'_>) -> Result<Self, Failure> {
        let mut options = Self::default();
        for index in 3..call.len() {
            match &*call.argument(index).to_ascii_uppercase() {
                b"NX" => options.nx = true,
                b"XX" => options.xx = true,
                b"GT" => options.gt = true,
                b"LT" => options.lt = true,
                _ => return Err(Failure::err(format!("Unsupported option {}", shown(call.argument(index), 64)))),
            }
        }
        if options.nx && (options.xx || options.gt || options.lt) {
            return Err(Failure::err("NX and XX, GT or LT options at the same time are not compatible"));
        }
        if options.gt && options.lt {
            return Err(Failure::err("GT and LT options at the same time are not compatible"));
        }
        Ok(options)
    }

    /// Whether an entry that has `old` milliseconds left may get `new` ones.
    fn allow(self, old: Option<u64>, new: u64) -> bool {
        let is_refused = match old {
            Some(old) => self.nx || (self.gt && new <= old) || (self.lt && new >= old),
            None => self.xx || self.gt,
        };
        !is_refused
    }
}

async fn set_expiry(call: &mut Call<'_>, unit: Unit, command: &str) -> Answer {
    let number = call.integer(2)?;
    let options = ExpireOptions::parse(call)?;
    let expiry = expiry(number, unit, command)?;
    if let (Expiry::In(ttl), true) = (expiry, call.len() == 3) {
        let patch = Patch { ttl: TtlChange::To(ttl), ..Patch::default() };
        let patched = call.door.cache.patch(&call.key(1)?, &patch).await?;
        call.reply.integer(patched.is_some().into());
        return Ok(());
    }
    let decide = |present: Option<(&Entry, &Details)>| {
        let Some((entry, _)) = present else { return (Change::Nothing, false) };
        let old = entry.expires_in.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        let new = match expiry {
            Expiry::In(ttl) => ttl.as_millis(),
            Expiry::Past => 0,
        };
        if !options.allow(old, new) {
            return (Change::Nothing, false);
        }
        let change = match expiry {
            Expiry::In(ttl) => Change::Ttl(TtlChange::To(ttl)),
            Expiry::Past => Change::Delete,
        };
        (change, true)
    };
    let is_set = call.door.cache.update(&call.key(1)?, Operation::Patch, decide).await?;
    call.reply.integer(is_set.into());
    Ok(())
}

pub async fn persist(call: &mut Call<'_>) -> Answer {
    let decide = |present: Option<(&Entry, &Details)>| match present {
        Some((entry, _)) if can_persist(entry) => (Change::Ttl(TtlChange::Never), true),
        _ => (Change::Nothing, false),
    };
    let is_set = call.door.cache.update(&call.key(1)?, Operation::Patch, decide).await?;
    call.reply.integer(is_set.into());
    Ok(())
}

/// Whether an entry expires and may live for ever. A mark as stale is never lifted without a new value.
fn can_persist(entry: &Entry) -> bool {
    entry.expires_in.is_some() && !entry.extra.is_marked()
}

/// GETEX: reads a value and changes how long it lives.
pub async fn getex(call: &mut Call<'_>) -> Answer {
    let (is_persistent, expiry) = match call.len() {
        2 => (false, None),
        3 if call.is(2, "PERSIST") => (true, None),
        4 => match Unit::of_option(call.argument(2)) {
            Some(unit) => (false, Some(positive(call.argument(3), unit, "getex")?)),
            None => return Err(SYNTAX),
        },
        _ => return Err(SYNTAX),
    };
    let decide = |present: Option<(&Entry, &Details)>| {
        let Some((entry, _)) = present else { return (Change::Nothing, None) };
        let change = match expiry {
            Some(Expiry::In(ttl)) => Change::Ttl(TtlChange::To(ttl)),
            Some(Expiry::Past) => Change::Delete,
            None if is_persistent && can_persist(entry) => Change::Ttl(TtlChange::Never),
            None => Change::Nothing,
        };
        (change, Some(entry.value.clone()))
    };
    if expiry.is_none() && !is_persistent {
        return get(call).await;
    }
    let value = call.door.cache.update(&call.key(1)?, Operation::Patch, decide).await?;
    put_old_value(call, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conditions_of_expire_are_those_of_redis() {
        let options = |text: &str| ExpireOptions {
            nx: text.contains("NX"),
            xx: text.contains("XX"),
            gt: text.contains("GT"),
            lt: text.contains("LT"),
        };
        for (text, old, new, expected) in [
            ("", None, 1, true),
            ("NX", None, 1, true),
            ("NX", Some(1), 1, false),
            ("XX", None, 1, false),
            ("XX", Some(1), 1, true),
            ("GT", None, 1, false),
            ("GT", Some(5), 5, false),
            ("GT", Some(5), 6, true),
            ("LT", None, 1, true),
            ("LT", Some(5), 5, false),
            ("LT", Some(5), 4, true),
            ("XX LT", None, 1, false),
        ] {
            assert_eq!(options(text).allow(old, new), expected, "{text} {old:?} {new}");
        }
    }
}
