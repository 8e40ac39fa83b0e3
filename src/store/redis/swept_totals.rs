//! The totals of a shard, after removing expired entries.

use std::time::Duration;

use super::shard::Shard;
use crate::clock::Moment;
use crate::model::{EvictionPolicy, Namespace};
use crate::store::{Error, Totals};

/// How long a request for totals may spend on removing expired entries before it is answered.
const SWEEP_FOR_TOTALS: Duration = Duration::from_millis(100);

impl Shard {
    /// The totals of a namespace, after removing expired entries for a bounded time.
    pub async fn swept_totals(&self, namespace: &Namespace) -> Result<Totals, Error> {
        let started = Moment::now();
        // If very many entries expired at once, the totals say how many of them are still counted.
        while self.sweep(namespace, 0, EvictionPolicy::None).await.map_err(Error::of_a_read)?.has_more
            && Moment::now().since(started) < SWEEP_FOR_TOTALS
        {}
        self.totals(namespace).await
    }
}
