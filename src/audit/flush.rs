//! A flush under way leaves its record however it ends, also when it is given up.

use super::record::{Change, Outcome, Record};
use crate::journal::Journal;

/// Leaves the record of a flush when dropped, as given up until [`FlushNote::ended`] says otherwise.
pub struct FlushNote {
    journal: Journal<Record>,
    record: Option<Record>,
}

impl FlushNote {
    pub(super) fn new(journal: Journal<Record>, record: Record) -> Self {
        Self { journal, record: Some(record) }
    }

    /// What became of the flush.
    pub fn ended(&mut self, ended: Outcome) {
        if let Some(Record { change: Change::Flush { outcome, .. }, .. }) = &mut self.record {
            *outcome = ended;
        }
    }

    /// Leaves nothing: another row tells of it.
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
