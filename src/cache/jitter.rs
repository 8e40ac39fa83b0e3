//! `ttl_jitter` of a policy: entries that are written together get different TTLs, so that they do not expire, and are
//! not loaded again, all at once.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::model::{Part, Policy, Ttl, map_hash};

/// How many TTLs were shortened in this process.
static SHORTENED: AtomicU64 = AtomicU64::new(0);

/// The TTL of a write: the one that it asks for or else the default, shortened by the policy's jitter.
pub(super) fn ttl_of_write(asked: Option<Ttl>, policy: &Policy) -> Option<Ttl> {
    let ttl = asked.or(policy.default_ttl)?;
    if policy.ttl_jitter == Part::NOTHING {
        return Some(ttl);
    }
    // The hash has a random key for each process, so instances do not shorten alike.
    let random = map_hash(&SHORTENED.fetch_add(1, Relaxed).to_le_bytes());
    Some(ttl.shortened(policy.ttl_jitter, random))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PolicyFields;

    fn policy(default_ttl: u64, ttl_jitter: f64) -> Policy {
        Policy::parse(&PolicyFields { default_ttl, ttl_jitter, ..PolicyFields::default() }).unwrap()
    }

    #[test]
    fn ttls_spread_over_the_whole_range() {
        let (asked, policy) = (Ttl::from_seconds(1000).ok(), policy(0, 0.1));
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let millis = ttl_of_write(asked, &policy).unwrap().as_millis();
            assert!((900_000..=1_000_000).contains(&millis), "{millis}");
            tenths[((millis - 900_000) / 10_000).min(9) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (800..1200).contains(count)), "{tenths:?}");
    }

    #[test]
    fn without_jitter_a_ttl_is_exact() {
        let (default, asked) = (policy(60, 0.0), Ttl::from_seconds(5).ok());
        assert_eq!(ttl_of_write(None, &default), Ttl::from_seconds(60).ok());
        assert_eq!(ttl_of_write(asked, &default), asked);
        assert_eq!(ttl_of_write(None, &policy(0, 0.5)), None, "it never expires");
    }
}
