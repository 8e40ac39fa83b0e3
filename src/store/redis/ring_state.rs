//! What this process knows about one shard's ring record.
//!
//! A ring record is *settled* when this process knows it and may serve the shard under it; nothing is served before.
//! `ring_keeper.rs` settles records, and `ring_record.rs` reads and writes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use fred::bytes_utils::Str;
use fred::types::Value;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::generations::Record;
use super::history::History;
use super::place;
use crate::model::{Position, Positions};

const UNSETTLED: u8 = 0;
const CLEAN: u8 = 1;
const UNCLEAN: u8 = 2;

/// What this process knows about one shard's ring record.
#[derive(Default)]
pub struct RingState {
    /// A copy of the state in `settled` that operations can check quickly.
    state: AtomicU8,
    settled: ArcSwapOption<SettledRecord>,
    /// Locked while a record is settled.
    settling: Mutex<()>,
    /// Wakes the task that removes void entries.
    pub changed: Notify,
    /// Whether entries became void and this process may have copies of them.
    voided: AtomicBool,
    /// Wakes the task that keeps the record. Notified when an operation or a proof found another record or no record.
    pub doubted: Notify,
    /// How often this process suspected that the server was replaced by one that reports no run id. Every instance
    /// must then void its copies.
    suspicions: AtomicU64,
    /// How many of these suspicions led to a new incarnation.
    answered_suspicions: AtomicU64,
    /// Whether a task is emptying the shard because its data has another format.
    is_being_emptied: AtomicBool,
    /// Whether living instances use another ring, so that this instance must serve nothing.
    is_mismatched: AtomicBool,
}

/// A ring record under which this process may serve.
pub struct SettledRecord {
    pub record: Record,
    /// When the record was written; a later record has a greater number.
    pub written: u64,
    pub identity: Identity,
    /// The token that every script passes, see `lua/fence_write.lua`.
    pub token: Str,
    /// `None` if the record is clean.
    pub history: Option<History>,
}

/// Which server a record belongs to, and how the data on it is arranged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Renewed when the record is lost or the server is another one. Copies from an earlier incarnation are void.
    pub incarnation: Str,
    /// See `place.rs`. Normally the same on all shards of a fleet.
    pub place_secret: Str,
    /// The run id of the server that wrote the record; empty if the user may not ask for it.
    pub run_id: Str,
    /// Earlier incarnations, each with the last change that is known to be in the data, see `lua/write_ring.lua`.
    pub earlier: Arc<[(u64, u64)]>,
}

/// The number of an incarnation in positions: the first half of its name.
fn incarnation_number(name: &str) -> u64 {
    name.get(..16).and_then(|half| u64::from_str_radix(half, 16).ok()).unwrap_or_default()
}

/// Parses the list of earlier incarnations of a record.
pub fn earlier_incarnations(text: &str) -> Arc<[(u64, u64)]> {
    let one = |part: &str| {
        let (name, last) = part.split_once(':')?;
        Some((incarnation_number(name), last.parse().ok()?))
    };
    text.split_whitespace().filter_map(one).collect()
}

impl SettledRecord {
    pub fn new(record: Record, written: u64, identity: Identity, history: Option<History>) -> Self {
        let token = Str::from(format!("{}.{written}", identity.incarnation));
        Self { record, written, identity, token, history }
    }

    /// Whether the shard holds no void entries.
    pub fn is_clean(&self) -> bool {
        self.history.is_none()
    }

    /// The arguments of a script about a namespace: the namespace, the secret for places, and then `rest`.
    pub fn arguments(&self, namespace: &str, rest: impl IntoIterator<Item = Value>) -> Vec<Value> {
        let first = [Value::from(namespace), Value::String(self.identity.place_secret.clone())];
        first.into_iter().chain(rest).collect()
    }

    /// The position of the change with this number.
    pub fn position(&self, seq: u64) -> Position {
        let incarnation = incarnation_number(&self.identity.incarnation);
        Position { incarnation, ring: self.record.current.number, seq }
    }

    /// Whether the shard, whose last change is `last`, is known to have every change up to the `positions` that are its
    /// own.
    pub fn has_reached(&self, positions: &Positions, last: u64) -> bool {
        let here = self.position(last);
        positions.of(&self.record.shard).all(|position| {
            let of = |(incarnation, _): &&(u64, u64)| *incarnation == position.incarnation;
            let last = match self.identity.earlier.iter().find(of) {
                _ if position.incarnation == here.incarnation => Some(last),
                earlier => earlier.map(|(_, last)| *last),
            };
            last.is_some_and(|last| position.seq <= last)
        })
    }

    /// The place of a key in the index of its namespace.
    pub fn place_of(&self, key: &str) -> u64 {
        place::of(&self.identity.place_secret, key)
    }
}

impl RingState {
    pub fn settled(&self) -> Option<Arc<SettledRecord>> {
        self.settled.load_full()
    }

    /// Serves under a record from now on.
    pub fn settle(&self, new: SettledRecord) {
        let _settling = self.settling.lock();
        let before = self.settled.load_full();
        if before.as_ref().is_some_and(|known| known.written >= new.written) {
            return;
        }
        let state = if new.history.is_some() { UNCLEAN } else { CLEAN };
        let is_another =
            before.is_some_and(|known| state == UNCLEAN || known.identity.incarnation != new.identity.incarnation);
        self.settled.store(Some(Arc::new(new)));
        self.state.store(state, Ordering::Release);
        self.changed.notify_one();
        self.is_mismatched.store(false, Ordering::Release);
        if is_another {
            self.voided.store(true, Ordering::Release);
        }
    }

    /// Whether entries became void since the last call and this process may have copies of them.
    pub fn take_voided(&self) -> bool {
        self.voided.swap(false, Ordering::AcqRel)
    }

    /// Records the suspicion that the server was replaced by one that does not report its run id.
    pub fn suspect(&self) {
        self.suspicions.fetch_add(1, Ordering::AcqRel);
        self.doubted.notify_one();
    }

    pub fn is_suspect(&self) -> bool {
        self.answered_suspicions.load(Ordering::Acquire) < self.suspicions()
    }

    /// The number of suspicions so far.
    pub fn suspicions(&self) -> u64 {
        self.suspicions.load(Ordering::Acquire)
    }

    /// A new incarnation was written. It answers the first `suspicions` suspicions; later ones stay open.
    pub fn trust(&self, suspicions: u64) {
        self.answered_suspicions.fetch_max(suspicions, Ordering::AcqRel);
    }

    /// Claims the emptying of the shard for one task; false if another task has claimed it.
    pub fn begin_emptying(&self) -> bool {
        !self.is_being_emptied.swap(true, Ordering::AcqRel)
    }

    /// Ends the claim; the shard is checked again.
    pub fn end_emptying(&self) {
        self.is_being_emptied.store(false, Ordering::Release);
        self.doubted.notify_one();
    }

    pub fn is_being_emptied(&self) -> bool {
        self.is_being_emptied.load(Ordering::Acquire)
    }

    /// Sets whether living instances use another ring. Settling the shard resets it.
    pub fn mismatch(&self, is_mismatched: bool) {
        self.is_mismatched.store(is_mismatched, Ordering::Release);
    }

    pub fn is_mismatched(&self) -> bool {
        self.is_mismatched.load(Ordering::Acquire)
    }

    pub fn is_settled(&self) -> bool {
        self.state.load(Ordering::Acquire) != UNSETTLED
    }

    pub fn is_clean(&self) -> bool {
        self.state.load(Ordering::Acquire) == CLEAN
    }
}
