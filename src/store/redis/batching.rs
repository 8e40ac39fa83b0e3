//! Combines concurrent reads and writes of single entries on one shard: operations that arrive in the same turn of a
//! worker's event loop are sent as one script.
//!
//! ```text
//!  one turn of the loop:  first request         more requests   other tasks   next turn:
//!                         queues, and spawns    queue                         the task takes the queue
//!                         a task that yields                                  and sends the scripts
//! ```
//!
//! A separate command costs this process and Redis more than an additional entry in a command. No operation waits for
//! a timer or for operations in flight: an operation that is alone is sent at once, and a shard that hangs delays
//! operations no longer than it would without this. The task does not depend on the requests in the queue: if one
//! request is cancelled, the others continue, and even the cancelled write is executed, unless the shard is still
//! making room for it.
//!
//! Each operation counts separately: it has its own place in flight, and an unanswered script counts as one timeout
//! for each of its operations. The size of a script is limited as for a batch.
//!
//! Measured in instructions of Redis, to overwrite 1,000 bytes: 136,000 in a script of its own, 52,000 in a script
//! with 32 others. Lua hashes every byte of a value that passes through it: 12,600 instructions for 1,000 bytes.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::load::{KEYS_PER_SCRIPT, Load, scripts_of};
use super::pending::{Answer, Get, PendingBatch, Set};
use super::shard::{Effect, Sender, Shard};
use super::verbs::FoundEntry;
use crate::model::{Entry, EntryKey, EvictionPolicy, Write};
use crate::store::{Error, Stored};

// A future that sends a script takes about ten kilobytes, and a spawned future is moved several times. The futures
// here are boxed, so that only a pointer is moved. Futures that are rarely awaited are boxed too, so that they do not
// enlarge the others.
impl Shard {
    /// Reads an entry.
    pub async fn get_batched(self: &Arc<Self>, key: &EntryKey) -> Result<Option<Entry>, Error> {
        let (answer, answered) = oneshot::channel();
        let _place = self.enter()?;
        self.queue(|turn| turn.gets.push(Get { key: key.clone(), answer, _place }));
        answered.await.unwrap_or_else(|_| Err(self.abandoned(Effect::Read)))
    }

    /// Writes an entry, within the bytes that its namespace may use on this shard.
    pub async fn set_batched(
        self: &Arc<Self>,
        key: &EntryKey,
        write: Write,
        limit_bytes: u64,
        policy: EvictionPolicy,
    ) -> Result<Stored, Error> {
        let (answer, answered) = oneshot::channel();
        let _place = self.enter()?;
        self.queue(|turn| turn.sets.push(Set { key: key.clone(), write, limit_bytes, policy, answer, _place }));
        answered.await.unwrap_or_else(|_| Err(self.abandoned(Effect::Write)))
    }

    fn queue(self: &Arc<Self>, add: impl FnOnce(&mut PendingBatch)) {
        let worker = self.pending.0.own_index();
        let is_first = {
            let mut turn = self.pending.0.at(worker).lock();
            let is_first = turn.gets.is_empty() && turn.sets.is_empty();
            add(&mut turn);
            is_first
        };
        if is_first {
            let task = SendTask { shard: self.clone(), worker, is_queue_taken: false };
            tokio::spawn(async move {
                // Let all tasks that are ready run first.
                yield_now().await;
                task.send_all().await;
            });
        }
    }

    /// Answers reads with one script. Reads that do not fit into its answer continue in a script of their own.
    async fn answer_gets(self: Arc<Self>, gets: Vec<Get>) {
        let found = {
            let keys: Vec<&EntryKey> = gets.iter().map(|get| &get.key).collect();
            self.get_some(Sender::Batch(keys.len()), &keys).await
        };
        let (found, is_broken) = match found {
            // One of the reads broke the script: send each alone, so that the others are answered.
            Err(Error::Protocol { .. }) if gets.len() > 1 => (Vec::new(), true),
            Err(error) => return gets.into_iter().for_each(|get| send(get.answer, Err(error.clone()))),
            Ok(found) => (found, false),
        };
        let (mut lost, mut gets) = (Vec::new(), gets.into_iter());
        for (found, get) in found.into_iter().zip(&mut gets) {
            match found {
                FoundEntry::Entry(entry) => send(get.answer, Ok(Some(entry))),
                FoundEntry::Nothing => send(get.answer, Ok(None)),
                FoundEntry::Lost => lost.push(get),
                FoundEntry::Foreign(foreign) => send(get.answer, Err(self.foreign(foreign))),
            }
        }
        let rest: Vec<Get> = gets.filter(|get| !get.answer.is_closed()).collect();
        if is_broken {
            rest.into_iter().for_each(|get| self.spawn_gets(vec![get]));
        } else if !rest.is_empty() {
            self.spawn_gets(rest);
        }
        if !lost.is_empty() {
            let keys: Vec<&EntryKey> = lost.iter().map(|get| &get.key).collect();
            Box::pin(self.notice_lost(&keys)).await;
            lost.into_iter().for_each(|get| send(get.answer, Ok(None)));
        }
    }

    fn spawn_gets(self: &Arc<Self>, gets: Vec<Get>) {
        tokio::spawn(Box::pin(self.clone().answer_gets(gets)));
    }

    fn spawn_sets(self: &Arc<Self>, sets: Vec<Set>) {
        tokio::spawn(Box::pin(self.clone().answer_sets(sets)));
    }

    /// Answers writes with the same grant, with as many scripts as making room requires.
    async fn answer_sets(self: Arc<Self>, mut sets: Vec<Set>) {
        let mut turn = None;
        while let Some(first) = sets.first() {
            let writes: Vec<(&EntryKey, &Write)> = sets.iter().map(|set| (&set.key, &set.write)).collect();
            let grant = first.grant();
            let (done, waited) = match self.set_some(Sender::Batch(writes.len()), grant, &writes).await {
                Ok(done) if done.is_empty() => (done, Box::pin(self.wait_for_room(grant, &mut turn)).await),
                Ok(done) => (done, Ok(())),
                // Entries stored by an earlier script stay stored: only the rest has failed.
                Err(Error::Full { .. }) => (Vec::new(), Box::pin(self.free_memory(grant, &mut turn)).await),
                Err(error) => (Vec::new(), Err(error)),
            };
            if let Err(error) = waited {
                return sets.into_iter().for_each(|set| send(set.answer, Err(error.clone())));
            }
            let is_making_room = done.is_empty();
            for (set, result) in sets.drain(..done.len()).zip(done) {
                send(set.answer, result);
            }
            // The rest is not stored. A client that is gone will not be told about its write, so the write must not
            // happen later, when it could overwrite newer writes of others.
            sets.retain(|set| !set.answer.is_closed());
            if is_making_room && sets.len() > 1 {
                // The other writes need not wait until there is room for the first.
                let first = sets.remove(0);
                self.spawn_sets(vec![first]);
            }
        }
    }
}

/// The task that sends the operations of one turn.
struct SendTask {
    shard: Arc<Shard>,
    worker: usize,
    is_queue_taken: bool,
}

impl SendTask {
    async fn send_all(mut self) {
        let shard = &self.shard;
        let PendingBatch { mut gets, mut sets } = shard.pending.take(self.worker);
        // Operations that are queued from now on start another task.
        self.is_queue_taken = true;
        gets.retain(|get| !get.answer.is_closed());
        // While the breaker is half open, each operation is a separate trial.
        let most_keys = if shard.may_batch() { KEYS_PER_SCRIPT } else { 1 };
        let mut gets = scripts_of(gets, most_keys, |_| Load::READ, |_, _| true);
        // A stable sort, so that writes of one key keep their order.
        sets.sort_by(|a, b| a.grant().cmp(&b.grant()));
        let mut sets = scripts_of(sets, most_keys, |set| Load::of(&set.write), |a, b| a.grant() == b.grant());
        // Usually there is one script, which needs no task of its own.
        let last_sets = sets.pop();
        let last_gets = if last_sets.is_none() { gets.pop() } else { None };
        gets.into_iter().for_each(|gets| shard.spawn_gets(gets));
        sets.into_iter().for_each(|sets| shard.spawn_sets(sets));
        if let Some(gets) = last_gets {
            Box::pin(shard.clone().answer_gets(gets)).await;
        }
        if let Some(sets) = last_sets {
            Box::pin(shard.clone().answer_sets(sets)).await;
        }
    }
}

impl Drop for SendTask {
    /// The runtime may end before the task has run. The queue is emptied, so that no operation stays in it and the
    /// next one starts a new task.
    fn drop(&mut self) {
        if self.is_queue_taken {
            return;
        }
        drop(self.shard.pending.take(self.worker));
    }
}

/// Sends a result, which is dropped if nobody waits for it any more.
fn send<T>(answer: Answer<T>, result: Result<T, Error>) {
    drop(answer.send(result));
}
