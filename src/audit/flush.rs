//! Makes sure that a flush leaves its audit record however it ends, even if it is cancelled.

use super::record::{Change, Outcome, Record};
use crate::journal::Journal;

/// Queues the record of a flush when dropped. The record says "abandoned" unless [`FlushNote::ended`] was called.
pub struct FlushNote {
    journal: Journal<Record>,
    record: Option<Record>,
}

impl FlushNote {
    pub(super) fn new(journal: Journal<Record>, record: Record) -> Self {
        Self { journal, record: Some(record) }
    }

    /// Sets the outcome of the flush.
    pub fn ended(&mut self, ended: Outcome) {
        if let Some(Record { change: Change::Flush { outcome, .. }, .. }) = &mut self.record {
            *outcome = ended;
        }
    }

    /// Queues no record, because another row already records the flush.
    pub fn discard(mut self) {
        self.record = None;
    }
}

impl Drop for FlushNote {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.journal.leave(record);
        }
    }
}
