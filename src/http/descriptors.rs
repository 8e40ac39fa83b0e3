//! The limit on file descriptors. Every connection needs one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::refusal;

/// How many descriptors are kept for everything except connections to clients and shards: standard streams, the
/// runtime, the database, and files that are opened for a short time. The number is generous.
const OWN: usize = 128;

/// Raises the soft limit on file descriptors to the hard limit and returns it; `None` means no limit. A low soft
/// limit only protects programs that use `select`, and this program does not use it.
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

/// How many connections can be open with `limit` descriptors if `others` are needed for something else: at least one,
/// at most `wanted`.
pub fn connections(limit: Option<u64>, wanted: usize, others: usize) -> usize {
    let needed = OWN + refusal::AT_ONCE + others;
    let Some(limit) = limit else { return wanted };
    let left = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(needed).max(1);
    if left < wanted {
        tracing::warn!(
            limit,
            max_connections = wanted,
            connections = left,
            "too few file descriptors: fewer connections are allowed"
        );
    }
    left.min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_on_connections_depends_on_the_descriptors() {
        let needed = OWN + refusal::AT_ONCE;
        assert_eq!(connections(None, 16_384, 100), 16_384);
        assert_eq!(connections(Some(1_000_000), 16_384, 100), 16_384);
        assert_eq!(connections(Some(1024), 16_384, 10), 1024 - needed - 10);
        assert_eq!(connections(Some(100), 16_384, 10), 1);
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_limit() {
        let raised = raise();
        assert_eq!(getrlimit(Resource::Nofile).current, raised);
    }
}
