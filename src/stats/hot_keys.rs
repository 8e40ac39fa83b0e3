//! Records which keys reads find: all of them while there are few reads, and a sample when there are many. Each
//! recorded key comes with the number of reads that it stands for. A hit costs one extra load and store; only a
//! recorded read takes a lock.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::model::{EntryKey, KeyRef};
use crate::workers::PerWorker;

/// After each `PER_STEP` recorded keys a worker records a smaller fraction of the reads; it records at most `MOST`
/// keys.
const PER_STEP: usize = 128;
const MOST: usize = 16 * PER_STEP;

/// A key that was found, and the number of reads that it stands for.
pub type Seen = (EntryKey, u32);

/// The keys found since they were last taken.
#[derive(Default)]
pub struct HotKeys(PerWorker<Part>);

#[derive(Default)]
struct Part {
    /// How many reads to skip before the next one is recorded. Workers that share a part may lose each other's
    /// decrements, which makes the sample slightly sparser.
    left: AtomicU32,
    kept: Mutex<Kept>,
}

struct Kept {
    keys: Vec<Seen>,
    /// One of this many reads is recorded. Always odd, so that clients that read keys in a cycle do not get the same
    /// key recorded every time.
    step: u32,
}

impl Default for Kept {
    fn default() -> Self {
        Self { keys: Vec::new(), step: 1 }
    }
}

impl HotKeys {
    /// Counts a read that found the entry of `key`.
    pub fn found(&self, key: KeyRef<'_>) {
        let part = self.0.own();
        match part.left.load(Relaxed) {
            0 => {
                // Locked until the step is stored, so that the step belongs to the keys recorded now.
                let mut kept = part.kept.lock();
                part.left.store(kept.keep(key) - 1, Relaxed);
            }
            left => part.left.store(left - 1, Relaxed),
        }
    }

    /// Takes the keys that reads found since the last call.
    pub fn take(&self) -> Vec<Seen> {
        let mut taken = Vec::new();
        for part in self.0.all() {
            let mut kept = part.kept.lock();
            taken.append(&mut std::mem::take(&mut *kept).keys);
            part.left.store(0, Relaxed);
        }
        taken
    }
}

impl Kept {
    /// Records the key. Returns the step to the next recorded read.
    fn keep(&mut self, key: KeyRef<'_>) -> u32 {
        if self.keys.len() < MOST {
            self.keys.push((key.to_key(), self.step));
            if self.keys.len().is_multiple_of(PER_STEP) {
                self.step = 2 * self.step + 1;
            }
        }
        self.step
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Key, Namespace};

    fn key(name: &str) -> EntryKey {
        EntryKey::new(&Namespace::parse("n").unwrap(), &Key::parse(name).unwrap())
    }

    #[test]
    fn few_reads_are_all_kept_and_taken_once() {
        let keys = HotKeys::default();
        for _ in 0..PER_STEP {
            keys.found(key("k").borrowed());
        }
        let taken = keys.take();
        assert_eq!((taken.len(), taken.iter().map(|(_, reads)| reads).sum::<u32>()), (PER_STEP, PER_STEP as u32));
        assert!(keys.take().is_empty());
    }

    #[test]
    fn many_reads_are_told_of_by_few_keys_in_their_proportion() {
        let keys = HotKeys::default();
        let (hot, cold) = (key("hot"), key("cold"));
        for i in 0..1_000_000 {
            keys.found(if i % 4 == 0 { &cold } else { &hot }.borrowed());
        }
        let taken = keys.take();
        assert!(taken.len() <= MOST, "{}", taken.len());
        let reads = |key: &EntryKey| {
            taken.iter().filter(|(seen, _)| seen == key).map(|(_, reads)| f64::from(*reads)).sum::<f64>()
        };
        assert!((reads(&hot) + reads(&cold) - 1e6).abs() < 5e4, "{} {}", reads(&hot), reads(&cold));
        assert!((reads(&hot) / reads(&cold) - 3.0).abs() < 0.3, "{} {}", reads(&hot), reads(&cold));
    }
}
