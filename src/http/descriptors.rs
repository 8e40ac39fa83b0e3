//! File descriptors, of which every connection takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::refusal;

/// What the process has open besides connections to clients and shards, generously: its standard streams,
/// the runtime's, the database's, and a file now and then.
const OWN: usize = 128;

/// Raises the soft limit on file descriptors to the hard one, and tells it; `None` for no limit. Nothing in
/// here uses `select`, which is what a low soft limit is for.
pub fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit on file descriptors");
            limit.current
        }
    }
}

/// The connections that can be open with `limit` descriptors, `wanted` at most, if `others` are needed for
/// something else; at least one.
pub fn connections(limit: Option<u64>, wanted: usize, others: usize) -> usize {
    let needed = OWN + refusal::AT_ONCE + others;
    let Some(limit) = limit else { return wanted };
    let left = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(needed).max(1);
    if left < wanted {
        tracing::warn!(limit, max_connections = wanted, connections = left, "fewer connections: too few descriptors");
    }
    left.min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_as_many_as_descriptors_allow() {
        let needed = OWN + refusal::AT_ONCE;
        assert_eq!(connections(None, 16_384, 100), 16_384);
        assert_eq!(connections(Some(1_000_000), 16_384, 100), 16_384);
        assert_eq!(connections(Some(1024), 16_384, 10), 1024 - needed - 10);
        assert_eq!(connections(Some(100), 16_384, 10), 1);
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise();
        assert_eq!(getrlimit(Resource::Nofile).current, raised);
    }
}
