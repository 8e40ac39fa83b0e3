//! The policy of a namespace.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use super::invalid::{Invalid, quoted};
use super::named::named;
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
}

impl Policy {
    /// 1 PiB; a larger quota is surely a typing error.
    pub const MAX_SIZE_MB: u64 = 1 << 30;

    /// Parses the four fields of a request, a setting or a row.
    ///
    /// # Errors
    /// [`Invalid::Policy`] naming the field.
    pub fn parse(
        default_ttl: u64,
        max_size_mb: u64,
        eviction_policy: &str,
        stale_if_error: u64,
    ) -> Result<Self, Invalid> {
        let default_ttl = seconds("default_ttl", "never expires", default_ttl)?;
        let stale_if_error = seconds("stale_if_error", "never stale", stale_if_error)?;
        if max_size_mb > Self::MAX_SIZE_MB {
            return Err(Invalid::Policy(format!(
                "`max_size_mb` must be 0 (no limit) to {}, not {max_size_mb}",
                Self::MAX_SIZE_MB
            )));
        }
        Ok(Self { default_ttl, max_size_mb, eviction_policy: eviction_policy.parse()?, stale_if_error })
    }

    /// How many bytes the entries of a namespace may use, and which entries are evicted when that is not enough.
    pub fn quota(&self) -> Quota {
        let max_bytes = NonZeroU64::new(self.max_size_mb << 20);
        Quota { max_bytes, eviction_policy: self.eviction_policy }
    }

    /// `default_ttl` in seconds, 0 for never.
    pub fn default_ttl_seconds(&self) -> u64 {
        self.default_ttl.map_or(0, Ttl::as_seconds)
    }

    /// `stale_if_error` in seconds, 0 for never.
    pub fn stale_if_error_seconds(&self) -> u64 {
        self.stale_if_error.map_or(0, Ttl::as_seconds)
    }
}

/// A change of some fields of a policy; the other fields stay unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyChange {
    default_ttl: Option<Option<Ttl>>,
    max_size_mb: Option<u64>,
    eviction_policy: Option<EvictionPolicy>,
    stale_if_error: Option<Option<Ttl>>,
}

impl PolicyChange {
    /// Parses the fields that are present, as [`Policy::parse`] does.
    ///
    /// # Errors
    /// [`Invalid::Policy`] naming the field.
    pub fn parse(
        default_ttl: Option<u64>,
        max_size_mb: Option<u64>,
        eviction_policy: Option<&str>,
        stale_if_error: Option<u64>,
    ) -> Result<Self, Invalid> {
        let policy = Policy::parse(
            default_ttl.unwrap_or(0),
            max_size_mb.unwrap_or(0),
            eviction_policy.unwrap_or(EvictionPolicy::default().as_str()),
            stale_if_error.unwrap_or(0),
        )?;
        Ok(Self {
            default_ttl: default_ttl.map(|_| policy.default_ttl),
            max_size_mb,
            eviction_policy: eviction_policy.map(|_| policy.eviction_policy),
            stale_if_error: stale_if_error.map(|_| policy.stale_if_error),
        })
    }

    /// Whether no field is changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The policy after the change.
    pub fn apply(&self, policy: Policy) -> Policy {
        Policy {
            default_ttl: self.default_ttl.unwrap_or(policy.default_ttl),
            max_size_mb: self.max_size_mb.unwrap_or(policy.max_size_mb),
            eviction_policy: self.eviction_policy.unwrap_or(policy.eviction_policy),
            stale_if_error: self.stale_if_error.unwrap_or(policy.stale_if_error),
        }
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
    fn a_change_leaves_what_it_does_not_name() {
        let before = Policy::parse(60, 5, "LFU", 30).unwrap();
        let changed =
            |ttl, size, eviction, stale| PolicyChange::parse(ttl, size, eviction, stale).unwrap().apply(before);
        assert_eq!(changed(None, None, None, None), before);
        assert_eq!(changed(Some(0), None, None, None), Policy { default_ttl: None, ..before });
        assert_eq!(changed(None, Some(200), None, None), Policy { max_size_mb: 200, ..before });
        let none = Policy { eviction_policy: EvictionPolicy::None, stale_if_error: None, ..before };
        assert_eq!(changed(None, None, Some("NONE"), Some(0)), none);
        assert!(PolicyChange::parse(None, None, Some("lru"), None).is_err());
    }

    #[test]
    fn wrong_fields_are_named() {
        for (ttl, size, name, stale, field) in [
            (Ttl::MAX_SECONDS + 1, 0, "LRU", 0, "default_ttl"),
            (0, Policy::MAX_SIZE_MB + 1, "LRU", 0, "max_size_mb"),
            (0, 0, "lru", 0, "eviction_policy"),
            (0, 0, "LRU", Ttl::MAX_SECONDS + 1, "stale_if_error"),
        ] {
            let error = Policy::parse(ttl, size, name, stale).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
