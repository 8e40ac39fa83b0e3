//! Makes an id for each request without an id, from the name of the instance and a number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::workers::PerWorker;

/// The longest name of an instance, and the longest id (name, dash, number), in bytes.
const MAX_INSTANCE_BYTES: usize = 32;
const MAX_ID_BYTES: usize = MAX_INSTANCE_BYTES + 1 + 16;

/// Makes request ids. The number is unique within the instance. The name of the instance is random, so ids of two
/// instances practically never collide.
#[derive(Clone)]
pub struct RequestIds {
    instance: Arc<str>,
    /// Each worker has its own counter, so that workers do not contend for a shared one.
    next: Arc<PerWorker<AtomicU64>>,
}

impl RequestIds {
    /// # Panics
    /// The name has more than [`MAX_INSTANCE_BYTES`].
    pub fn new(instance: &str) -> Self {
        assert!(instance.len() <= MAX_INSTANCE_BYTES, "the instance's name is too long: {instance}");
        Self { instance: instance.into(), next: Arc::default() }
    }

    /// A new id.
    pub fn next(&self) -> String {
        self.with_next(|id| String::from_utf8_lossy(id).into_owned())
    }

    /// Calls `take` with a new id. Does not allocate.
    pub fn with_next<R>(&self, take: impl FnOnce(&[u8]) -> R) -> R {
        let parts = PerWorker::<AtomicU64>::PARTS as u64;
        let mut number = self.next.own().fetch_add(1, Relaxed) * parts + self.next.own_index() as u64;
        // Writes the hexadecimal digits from the end of the buffer, without leading zeros.
        let mut id = [0; MAX_ID_BYTES];
        let mut start = MAX_ID_BYTES;
        loop {
            start -= 1;
            id[start] = b"0123456789abcdef"[(number % 16) as usize];
            number /= 16;
            if number == 0 {
                break;
            }
        }
        start -= 1;
        id[start] = b'-';
        let end = start;
        start -= self.instance.len();
        id[start..end].copy_from_slice(self.instance.as_bytes());
        take(&id[start..])
    }
}
