//! Leases on the shards. `lua/lease.lua` has their form.

use fred::types::{Resp3Frame as Frame, Value};
use std::time::Duration;

use super::reply::{self, Unexpected};
use super::ring_state::SettledRecord;
use super::scripts;
use super::shard::{Effect, Shard};
use super::verbs::{FoundEntry, found};
use crate::model::{EntryKey, LeaseToken, Namespace, Version, WantedLease};
use crate::store::{Error, Leased, Room};

/// Keys in one script: each may be a write. A script also stops once its answer is large.
const KEYS_PER_SCRIPT: usize = 33;

/// The least time after which a caller that waits asks again.
const LEAST_LEFT: Duration = Duration::from_millis(50);

/// The answer for one key.
enum Given {
    Found(FoundEntry),
    Lease(Leased),
}

impl Shard {
    /// Reads entries of one namespace, and gives a lease on each key without a lease that has no entry, or an entry that
    /// counts as missing.
    pub async fn get_or_lease(
        &self,
        keys: &[&WantedLease],
        lease: Duration,
        room: Room<'_>,
    ) -> Result<Vec<Result<Leased, Error>>, Error> {
        let mut answers = Vec::with_capacity(keys.len());
        let mut rest = keys;
        while !rest.is_empty() {
            let given = self.get_or_lease_some(&rest[..rest.len().min(KEYS_PER_SCRIPT)], lease).await?;
            rest = &rest[given.len()..];
            let bytes = given.iter().map(|given| match given {
                Given::Found(found) => found.bytes(),
                Given::Lease(_) => 0,
            });
            if !room(bytes.sum()) {
                return Err(Error::Overloaded { shard: self.name.clone() });
            }
            answers.extend(given.into_iter().map(|given| match given {
                Given::Found(FoundEntry::Entry(entry)) => Ok(Leased::Entry(entry)),
                Given::Found(FoundEntry::Foreign(foreign)) => Err(self.foreign(foreign)),
                Given::Found(FoundEntry::Nothing | FoundEntry::Lost) => Ok(Leased::NotGiven),
                Given::Lease(leased) => Ok(leased),
            }));
        }
        Ok(answers)
    }

    /// The answers for at least the first of the keys.
    async fn get_or_lease_some(&self, keys: &[&WantedLease], lease: Duration) -> Result<Vec<Given>, Error> {
        let arguments = |settled: &SettledRecord| {
            let namespace = keys.first().map_or("", |wanted| wanted.key.namespace());
            let first = [Value::from(namespace), Value::from(lease.as_millis().to_string())];
            let run_id = Value::String(settled.identity.run_id.clone());
            let keys = keys.iter().flat_map(|WantedLease { key, token, beyond }| {
                let beyond = beyond.map_or(String::new(), |Version(version)| version.to_string());
                [Value::from(key.key()), Value::from(token.as_str()), Value::from(beyond)]
            });
            first.into_iter().chain([run_id]).chain(keys).collect()
        };
        let read = |frame| {
            let mut fields = reply::array(frame)?.into_iter();
            let mut given = Vec::with_capacity(keys.len());
            while let (Some(a), Some(b), Some(c), Some(d)) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            {
                given.push(parse([a, b, c, d])?);
            }
            if (1..=keys.len()).contains(&given.len()) { Ok(given) } else { Err("at most one answer per key") }
        };
        // For the caller this is a read: a lease that was given without an answer is given back.
        self.ask(&scripts::LEASE, Effect::Write, arguments, read).await.map_err(Error::of_a_read)
    }

    /// Ends a lease without a value; returns whether it stood.
    pub async fn release(&self, key: &EntryKey, token: &LeaseToken) -> Result<bool, Error> {
        let arguments = |settled: &SettledRecord| {
            let run_id = Value::String(settled.identity.run_id.clone());
            [key.namespace(), key.key(), token.as_str()].into_iter().map(Value::from).chain([run_id]).collect()
        };
        Ok(self.ask(&scripts::RELEASE, Effect::Write, arguments, reply::number).await? == 1)
    }

    /// Ends all leases of a namespace on this shard.
    pub async fn end_leases(&self, namespace: &Namespace) -> Result<(), Error> {
        let arguments = |_: &SettledRecord| vec![Value::from(namespace.as_str())];
        self.ask(&scripts::RAISE_LEASE_FLOOR, Effect::Write, arguments, reply::number).await.map(drop)
    }
}

fn parse(fields: [Frame; 4]) -> Result<Given, Unexpected> {
    let is_lease = matches!(&fields, [Frame::Null, Frame::Number { data: 3, .. }, ..]);
    if !is_lease {
        return Ok(Given::Found(found(fields)?));
    }
    let [_, _, state, left] = fields;
    let left = Duration::from_millis(reply::count(left)?);
    Ok(Given::Lease(match &*reply::text(state)? {
        "won" => Leased::Won,
        "held" => Leased::Held { left: left.max(LEAST_LEFT) },
        "none" => Leased::NotGiven,
        _ => return Err("won, held or none"),
    }))
}
