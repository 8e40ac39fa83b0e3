//! Whether the instances agree about the ring.

use std::collections::BTreeMap;

use super::Instance;
use crate::store::RingCount;

/// How many instances are alive, and how many of them use another ring than this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    own_version: String,
    /// Instances with this ring, this one included.
    own: u64,
    /// Number of instances by ring version, for the other rings.
    others: BTreeMap<String, u64>,
}

impl Agreement {
    fn new(own_version: &str, mut instances: BTreeMap<String, u64>) -> Self {
        // This instance is alive, even if no shard counted it.
        let own = instances.remove(own_version).unwrap_or(0).max(1);
        Self { own_version: own_version.to_owned(), own, others: instances }
    }

    /// The agreement as counted by the shards. All instances of a ring are on the same shards, so the largest count
    /// includes all of them.
    pub fn among<'c>(own_version: &str, counted: impl Iterator<Item = &'c [RingCount]>) -> Self {
        let mut instances = BTreeMap::new();
        for RingCount { version, instances: count } in counted.flatten() {
            let most: &mut u64 = instances.entry(version.clone()).or_default();
            *most = (*most).max(*count);
        }
        Self::new(own_version, instances)
    }

    /// The agreement, counted from a list of instances.
    pub fn of(own_version: &str, listed: &[Instance]) -> Self {
        let mut instances = BTreeMap::new();
        for instance in listed {
            *instances.entry(instance.ring_version.clone()).or_default() += 1;
        }
        Self::new(own_version, instances)
    }

    pub fn is_agreed(&self) -> bool {
        self.others.is_empty()
    }

    /// Number of living instances.
    pub fn instances(&self) -> u64 {
        self.own + self.disagreeing()
    }

    /// Number of living instances with another ring than this one.
    pub fn disagreeing(&self) -> u64 {
        self.others.values().sum()
    }

    /// The other rings and their number of instances, for people: `2 with ring 0123, 1 with ring 4567`.
    pub fn others(&self) -> String {
        let others = self.others.iter().map(|(version, instances)| format!("{instances} with ring {version}"));
        others.collect::<Vec<_>>().join(", ")
    }

    /// Warnings for the operator.
    pub fn warnings(&self) -> Vec<String> {
        if self.is_agreed() {
            return Vec::new();
        }
        vec![format!(
            "instances disagree about the ring: {} with ring {} like this one, {}; all must have the same names in \
             redis_shards",
            self.own,
            self.own_version,
            self.others()
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, u64)]) -> Vec<RingCount> {
        counts
            .iter()
            .map(|(version, instances)| RingCount { version: (*version).into(), instances: *instances })
            .collect()
    }

    #[test]
    fn an_instance_alone_agrees_with_itself() {
        let alone = Agreement::among("a", std::iter::empty());
        assert_eq!((alone.instances(), alone.disagreeing(), alone.is_agreed()), (1, 0, true));
        assert!(alone.warnings().is_empty());
    }

    #[test]
    fn instances_that_are_on_several_shards_count_once() {
        let shards = [counts(&[("a", 3), ("b", 1)]), counts(&[("a", 2)]), counts(&[("b", 2), ("c", 1)])];
        let agreement = Agreement::among("a", shards.iter().map(Vec::as_slice));
        assert_eq!((agreement.instances(), agreement.disagreeing()), (6, 3));
        assert_eq!(agreement.others(), "2 with ring b, 1 with ring c");
        assert_eq!(agreement.warnings().len(), 1);
    }
}
