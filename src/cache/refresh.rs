//! Reads that ask for a lease and find an entry: once the entry should be refreshed, one caller of the fleet gets the
//! lease together with the entry, and loads while all others are answered.
//!
//! An entry is due when the part `refresh_after` of its TTL is over, when it is marked, and during its grace. The shard
//! decides who refreshes it (`lua/lease.lua`). Here one caller of the instance asks it, and the others take what L1
//! has (`coherence/refreshes.rs`). Whether an entry in L1 is due is a guess, because its age is known only by the
//! shard's clock; the answer of the shard is not.

use std::time::Duration;

use super::Cache;
use super::lease::{LeasedLookup, Question, StoreAnswer};
use super::lookup::{AnsweredBy, Lookup};
use super::won_lease::{Lease, WonLease};
use crate::clock::{Moment, unix_millis};
use crate::coherence::{SharedAnswer, Turn};
use crate::model::{Entry, EntryKey, EntryRef, KeyRef, LeaseRequest, Part, ReadTerms};
use crate::store::{self, Grant};

impl Cache {
    /// The part of its TTL after which an entry of this key's namespace should be refreshed.
    pub(super) fn refresh_after(&self, key: &EntryKey) -> Part {
        self.registry.policy(key.namespace()).refresh_after
    }

    /// Answers a read that asks for a lease with the entry, if L1 or a store in this process has it. If the entry is
    /// due, one caller asks its shard for the lease.
    ///
    /// # Errors
    /// The entry is not in memory, and no shard may be asked; or the store in this process lost changes up to the
    /// positions.
    pub(super) async fn find_or_refresh(
        &self,
        question: &Question<'_>,
    ) -> Result<Option<LeasedLookup>, store::Error> {
        let Question { key, terms, lease, .. } = *question;
        if self.near.is_none() {
            let answer = self.ask_for_lease(question, Moment::now()).await?;
            return Ok(self.take_found(question, answer));
        }
        let Some(lookup) = self.look_up_nearby(key, terms)? else { return Ok(None) };
        let due = lookup.entry.as_ref().filter(|_| !terms.only_if_cached);
        let turn = due.and_then(|entry| self.turn_to_refresh(key, entry));
        let Some(turn) = turn else { return Ok(Some(LeasedLookup { lookup, lease: None })) };
        let asked = Moment::now();
        match self.ask_for_lease(question, asked).await {
            Ok(answer) => {
                self.waiting.learn(key, turn, asked + pause_after(answer.grant, lease));
                Ok(self.take_found(question, answer))
            }
            Err(error) => {
                tracing::debug!(%error, "nobody refreshes an entry, because its shard did not answer");
                Ok(Some(LeasedLookup { lookup, lease: None }))
            }
        }
    }

    /// Whether a read that asks for a lease might get one over this entry, which is in memory: it is due, and no
    /// caller of this instance has asked.
    pub(super) fn may_refresh(&self, key: KeyRef<'_>, entry: EntryRef<'_>, now: Moment) -> bool {
        let refresh_after = self.registry.policy(key.namespace()).refresh_after;
        let is_due = entry.refresh_in(refresh_after, unix_millis()).is_some_and(|left| left.is_zero());
        is_due && self.waiting.may_begin_turn(&key.to_key(), now)
    }

    /// The right to ask the shard about an entry that L1 has; `None` if it is not due, or if another caller has asked.
    fn turn_to_refresh(&self, key: &EntryKey, entry: &Entry) -> Option<Turn> {
        let is_due = entry.refresh_in(self.refresh_after(key), unix_millis())?.is_zero();
        is_due.then(|| self.waiting.begin_turn(key, Moment::now())).flatten()
    }

    /// The answer to the read if the store found an entry or gave the lease.
    fn take_found(&self, question: &Question<'_>, answer: StoreAnswer) -> Option<LeasedLookup> {
        let StoreAnswer { answer, won, .. } = answer;
        let miss = self.miss(question, false);
        match answer {
            SharedAnswer::Entry(entry) => {
                let found = self.found(entry, question.terms, miss.trail, won);
                Some(found).filter(|found| found.lookup.entry.is_some() || found.lease.is_some())
            }
            SharedAnswer::Held { .. } | SharedAnswer::NotGiven => {
                won.map(|won| LeasedLookup { lookup: miss, lease: Some(Lease::Won(won)) })
            }
        }
    }

    /// An entry that the store found, with the lease if this caller refreshes it. It may not meet the terms.
    pub(super) fn found(
        &self,
        entry: Entry,
        terms: &ReadTerms,
        trail: AnsweredBy,
        won: Option<WonLease>,
    ) -> LeasedLookup {
        let lookup = Lookup::of_store(Some(entry), terms, trail);
        if won.is_some() && lookup.entry.is_some() {
            self.metrics.refreshes.increment(1);
        }
        LeasedLookup { lookup, lease: won.map(Lease::Won) }
    }
}

/// For how long no caller of this instance asks again, after this answer to one that asked for this lease.
fn pause_after(grant: Grant, lease: Duration) -> Duration {
    match grant {
        Grant::Won => lease,
        Grant::Held { left } | Grant::NotDue { left: Some(left) } => left,
        Grant::NotDue { left: None } | Grant::NotGiven => LeaseRequest::SHORTEST,
    }
}
