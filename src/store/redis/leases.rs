//! Leases on the shards. `lua/lease.lua` has their form.

use fred::types::{Resp3Frame as Frame, Value};
use std::time::Duration;

use super::reply::{self, Unexpected};
use super::ring_state::SettledRecord;
use super::scripts;
use super::shard::{Effect, Sender, Shard};
use super::verbs::{FoundEntry, found};
use crate::model::{EntryKey, LeaseToken, Namespace, Part, Position, Positions, Version, WantedLease};
use crate::store::{Error, Grant, Leased, Room};

/// Keys in one script: each may be a write. A script also stops once its answer is large.
const KEYS_PER_SCRIPT: usize = 33;

/// The least time after which a caller that waits asks again.
const LEAST_LEFT: Duration = Duration::from_millis(50);

/// The answer for one key.
struct Given {
    found: FoundEntry,
    lease: Grant,
}

impl Shard {
    /// Reads entries of one namespace, and gives a lease on each key without a lease that has no entry, or one that
    /// counts as missing or should be refreshed. The shard must have every change up to its own `positions`.
    pub async fn get_or_lease(
        &self,
        keys: &[&WantedLease],
        lease: Duration,
        positions: &Positions,
        room: Room<'_>,
    ) -> Result<Vec<Result<Leased, Error>>, Error> {
        let (mut answers, mut lost) = (Vec::with_capacity(keys.len()), Vec::new());
        let mut rest = keys;
        while !rest.is_empty() {
            let some = &rest[..rest.len().min(KEYS_PER_SCRIPT)];
            let given = self.get_or_lease_some(some, lease, positions).await?;
            let (asked, unasked) = rest.split_at(given.len());
            rest = unasked;
            if !room(given.iter().map(|given| given.found.bytes()).sum()) {
                return Err(Error::Overloaded { shard: self.name.clone() });
            }
            answers.extend(asked.iter().zip(given).map(|(wanted, Given { found, lease })| match found {
                FoundEntry::Entry(entry) => Ok(Leased { entry: Some(entry), lease }),
                FoundEntry::Foreign(foreign) => Err(self.foreign(foreign)),
                FoundEntry::Nothing => Ok(Leased { entry: None, lease }),
                FoundEntry::Lost => {
                    lost.push(&wanted.key);
                    Ok(Leased { entry: None, lease })
                }
            }));
        }
        if !lost.is_empty() {
            self.notice_lost(&lost).await;
        }
        Ok(answers)
    }

    /// The answers for at least the first of the keys.
    async fn get_or_lease_some(
        &self,
        keys: &[&WantedLease],
        lease: Duration,
        positions: &Positions,
    ) -> Result<Vec<Given>, Error> {
        let arguments = |settled: &SettledRecord| {
            let namespace = keys.first().map_or("", |wanted| wanted.key.namespace());
            let first = [Value::from(namespace), Value::from(lease.as_millis().to_string())];
            let run_id = Value::String(settled.identity.run_id.clone());
            let keys = keys.iter().flat_map(|WantedLease { key, token, beyond, refresh_after }| {
                let beyond = beyond.map_or_else(String::new, |Version(version)| version.to_string());
                let refresh_after = refresh_after.map_or_else(String::new, |part: Part| part.of(1000).to_string());
                [Value::from(key.key()), Value::from(token.as_str()), Value::from(beyond), Value::from(refresh_after)]
            });
            first.into_iter().chain([run_id]).chain(keys).collect()
        };
        let read = |frame| {
            let given = reply::rows(frame)?.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
            if (1..=keys.len()).contains(&given.len()) { Ok(given) } else { Err("at most one answer per key") }
        };
        let scripts = [&scripts::LEASE, &scripts::LEASE_AT];
        // For the caller this is a read: a lease that was given without an answer, or on a shard that lost a position,
        // is given back.
        self.ask_at(scripts, Effect::Write, positions, arguments, read).await.map_err(Error::of_a_read)
    }

    /// Ends a lease without a value. Returns the shard's position after that; `None` if the lease did not stand.
    pub async fn release(&self, key: &EntryKey, token: &LeaseToken) -> Result<Option<Position>, Error> {
        let arguments = |settled: &SettledRecord| {
            let run_id = Value::String(settled.identity.run_id.clone());
            [key.namespace(), key.key(), token.as_str()].into_iter().map(Value::from).chain([run_id]).collect()
        };
        let read = |frame, settled: &SettledRecord| {
            let seq = reply::count(frame)?;
            Ok((seq > 0).then(|| settled.position(seq)))
        };
        self.ask_settled(Sender::Alone, &scripts::RELEASE, Effect::Write, arguments, read).await
    }

    /// Ends all leases of a namespace on this shard.
    pub async fn end_leases(&self, namespace: &Namespace) -> Result<(), Error> {
        let arguments = |_: &SettledRecord| vec![Value::from(namespace.as_str())];
        self.ask(&scripts::RAISE_LEASE_FLOOR, Effect::Write, arguments, reply::number).await.map(drop)
    }
}

fn parse([value, version, created_at, remaining, state, left]: [Frame; 6]) -> Result<Given, Unexpected> {
    let is_missing = matches!((&value, &version), (Frame::Null, Frame::Number { data: 3, .. }));
    let found = if is_missing { FoundEntry::Nothing } else { found([value, version, created_at, remaining])? };
    let left = Duration::from_millis(reply::count(left)?);
    let lease = match &*reply::text(state)? {
        "won" => Grant::Won,
        "held" => Grant::Held { left: left.max(LEAST_LEFT) },
        "none" => Grant::NotGiven,
        "early" => Grant::NotDue { left: Some(left) },
        "" => Grant::NotDue { left: None },
        _ => return Err("the state of a lease"),
    };
    Ok(Given { found, lease })
}
