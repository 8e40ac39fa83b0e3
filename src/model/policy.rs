//! The policy of a namespace.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::invalid::{Invalid, quoted};
use super::named::named;
use super::part::Part;
use super::policy_fields::PolicyFields;
use super::ttl::Ttl;

/// A namespace's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The TTL of entries that are written without one; `None`: they never expire.
    pub default_ttl: Option<Ttl>,
    /// The quota in MiB (2^20 bytes), see [`super::charge`]; 0: no quota.
    pub max_size_mb: u64,
    pub eviction_policy: EvictionPolicy,
    /// How long stale copies may be served while their shard cannot answer; `None`: never.
    pub stale_if_error: Option<Ttl>,
    /// The TTL of each write is shortened at random by up to this part, see [`Policy::TTL_JITTER`].
    pub ttl_jitter: Part,
    /// The part of its TTL after which an entry is refreshed, see [`Policy::REFRESH_AFTER`]; [`Part::ALL`]: never
    /// before it expires.
    pub refresh_after: Part,
    /// How long an entry is still served after its TTL while it is refreshed; `None`: not at all.
    pub stale_while_revalidate: Option<Ttl>,
    /// How long the source version of a deleted entry is remembered.
    pub tombstone_ttl: Ttl,
}

impl Policy {
    /// 1 PiB; a larger quota is surely a typing error.
    pub const MAX_SIZE_MB: u64 = 1 << 30;

    /// The range of `ttl_jitter`; 0: off.
    pub const TTL_JITTER: RangeInclusive<f64> = 0.0..=0.5;

    /// The range of `refresh_after`; 1: off.
    pub const REFRESH_AFTER: RangeInclusive<f64> = 0.001..=1.0;

    /// Parses the fields of a request, of settings or of a row.
    ///
    /// # Errors
    /// [`Invalid::Policy`] naming the field.
    pub fn parse(fields: &PolicyFields) -> Result<Self, Invalid> {
        if fields.max_size_mb > Self::MAX_SIZE_MB {
            return Err(Invalid::Policy(format!(
                "`max_size_mb` must be 0 (no limit) to {}, not {}",
                Self::MAX_SIZE_MB,
                fields.max_size_mb
            )));
        }
        Ok(Self {
            default_ttl: seconds("default_ttl", "never expires", fields.default_ttl)?,
            max_size_mb: fields.max_size_mb,
            eviction_policy: fields.eviction_policy.parse()?,
            stale_if_error: seconds("stale_if_error", "never stale", fields.stale_if_error)?,
            ttl_jitter: part("ttl_jitter", Self::TTL_JITTER, fields.ttl_jitter)?,
            refresh_after: part("refresh_after", Self::REFRESH_AFTER, fields.refresh_after)?,
            stale_while_revalidate: seconds("stale_while_revalidate", "off", fields.stale_while_revalidate)?,
            tombstone_ttl: tombstone_ttl(fields.tombstone_ttl)?,
        })
    }

    /// The fields as [`Policy::parse`] reads them.
    pub fn fields(&self) -> PolicyFields {
        let seconds = |ttl: Option<Ttl>| ttl.map_or(0, Ttl::as_seconds);
        PolicyFields {
            default_ttl: seconds(self.default_ttl),
            max_size_mb: self.max_size_mb,
            eviction_policy: self.eviction_policy.to_string(),
            stale_if_error: seconds(self.stale_if_error),
            ttl_jitter: self.ttl_jitter.as_f64(),
            refresh_after: self.refresh_after.as_f64(),
            stale_while_revalidate: seconds(self.stale_while_revalidate),
            tombstone_ttl: self.tombstone_ttl.as_seconds(),
        }
    }

    /// How many bytes the entries of a namespace may use, and which entries are evicted when that is not enough.
    pub fn quota(&self) -> Quota {
        let max_bytes = NonZeroU64::new(self.max_size_mb << 20);
        Quota { max_bytes, eviction_policy: self.eviction_policy }
    }

    /// `stale_if_error` in seconds, 0 for never.
    pub fn stale_if_error_seconds(&self) -> u64 {
        self.stale_if_error.map_or(0, Ttl::as_seconds)
    }
}

/// Parses a number of seconds; 0 means `None`, and `zero` describes it in the error.
fn seconds(field: &str, zero: &str, seconds: u64) -> Result<Option<Ttl>, Invalid> {
    if seconds == 0 {
        return Ok(None);
    }
    let wrong = || format!("`{field}` must be 0 ({zero}) to {} seconds, not {seconds}", Ttl::MAX_SECONDS);
    Ttl::from_seconds(seconds).map(Some).map_err(|_| Invalid::Policy(wrong()))
}

fn tombstone_ttl(seconds: u64) -> Result<Ttl, Invalid> {
    let wrong = || format!("`tombstone_ttl` must be 1 to {} seconds, not {seconds}", Ttl::MAX_SECONDS);
    Ttl::from_seconds(seconds).map_err(|_| Invalid::Policy(wrong()))
}

fn part(field: &str, range: RangeInclusive<f64>, number: f64) -> Result<Part, Invalid> {
    let wrong = || format!("`{field}` must be a number from {} to {}, not {number}", range.start(), range.end());
    let part = Some(number).filter(|number| range.contains(number)).and_then(Part::rounded);
    part.ok_or_else(|| Invalid::Policy(wrong()))
}

/// The part of a policy that a store enforces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// The limit for the sum over all entries, see [`super::charge`]; `None`: no limit.
    pub max_bytes: Option<NonZeroU64>,
    pub eviction_policy: EvictionPolicy,
}

impl Quota {
    /// Whether a value of `size` bytes can ever be stored.
    pub fn admits(&self, size: usize) -> bool {
        self.max_bytes.is_none_or(|max| size as u64 <= max.get())
    }

    /// The limit on each of `shards` shards; 0: no limit. Rounded down, so that all shards together never allow more
    /// than the quota.
    pub fn share(&self, shards: usize) -> u64 {
        self.max_bytes.map_or(0, |max| (max.get() / shards.max(1) as u64).max(1))
    }
}

/// The quotas of all namespaces, for a store that must choose from which namespace to evict.
pub trait Quotas: Send + Sync + 'static {
    fn quota(&self, namespace: &str) -> Quota;
}

named! {
    /// Which entry is evicted when a namespace is full.
    #[derive(Default)]
    EvictionPolicy {
        /// The least recently used.
        #[default]
        Lru = "LRU",
        /// The least frequently used (fewest reads); among equals the least recently used.
        Lfu = "LFU",
        /// The one whose last write is the oldest.
        Fifo = "FIFO",
        /// The one that expires first; among equals the least recently used.
        Ttl = "TTL",
        /// No entry is evicted: a write that does not fit is refused.
        None = "NONE",
    }
}

impl FromStr for EvictionPolicy {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::named(text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            Invalid::Policy(format!("`eviction_policy` must be one of {names}, not {}", quoted(text)))
        })
    }
}

impl fmt::Display for EvictionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for policy in EvictionPolicy::ALL {
            assert_eq!(policy.as_str().parse(), Ok(policy));
        }
    }

    #[test]
    fn fields_round_trip() {
        let fields = PolicyFields {
            default_ttl: 60,
            max_size_mb: 5,
            eviction_policy: "LFU".to_owned(),
            stale_if_error: 30,
            ttl_jitter: 0.1,
            refresh_after: 0.75,
            stale_while_revalidate: 20,
            tombstone_ttl: 10,
        };
        for fields in [fields, PolicyFields::default()] {
            assert_eq!(Policy::parse(&fields).unwrap().fields(), fields);
        }
    }

    #[test]
    fn wrong_fields_are_named_with_what_was_given() {
        let (valid, too_long) = (PolicyFields::default, Ttl::MAX_SECONDS + 1);
        for (fields, named) in [
            (PolicyFields { default_ttl: too_long, ..valid() }, "`default_ttl`"),
            (PolicyFields { max_size_mb: Policy::MAX_SIZE_MB + 1, ..valid() }, "`max_size_mb`"),
            (PolicyFields { eviction_policy: "lru".to_owned(), ..valid() }, "`eviction_policy`"),
            (PolicyFields { stale_if_error: too_long, ..valid() }, "`stale_if_error`"),
            (PolicyFields { ttl_jitter: 0.6, ..valid() }, "`ttl_jitter` must be a number from 0 to 0.5, not 0.6"),
            (PolicyFields { ttl_jitter: -0.1, ..valid() }, "`ttl_jitter`"),
            (PolicyFields { ttl_jitter: f64::NAN, ..valid() }, "`ttl_jitter`"),
            (
                PolicyFields { refresh_after: 0.0, ..valid() },
                "`refresh_after` must be a number from 0.001 to 1, not 0",
            ),
            (PolicyFields { refresh_after: 1.1, ..valid() }, "`refresh_after`"),
            (PolicyFields { stale_while_revalidate: too_long, ..valid() }, "`stale_while_revalidate`"),
            (PolicyFields { tombstone_ttl: 0, ..valid() }, "`tombstone_ttl` must be 1 to 3153600000 seconds, not 0"),
            (PolicyFields { tombstone_ttl: too_long, ..valid() }, "`tombstone_ttl`"),
        ] {
            let error = Policy::parse(&fields).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
