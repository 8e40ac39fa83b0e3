//! What a namespace promises about its entries.

use std::fmt;
use std::str::FromStr;

use super::invalid::{Invalid, quoted};
use super::ttl::Ttl;

/// A namespace's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The TTL of entries written without one; `None` never expires.
    pub default_ttl: Option<Ttl>,
    /// The quota in MiB (2^20 bytes) of stored values; 0 for none of its own.
    pub max_size_mb: u64,
    pub eviction_policy: EvictionPolicy,
}

impl Policy {
    /// 1 PiB; a quota beyond it is a typing error.
    pub const MAX_SIZE_MB: u64 = 1 << 30;

    /// Parses the three fields as they stand in a request, a setting or a row.
    ///
    /// # Errors
    /// [`Invalid::Policy`] naming the field.
    pub fn parse(default_ttl: u64, max_size_mb: u64, eviction_policy: &str) -> Result<Self, Invalid> {
        let default_ttl = match default_ttl {
            0 => None,
            seconds => Some(Ttl::from_seconds(seconds).map_err(|_| {
                Invalid::Policy(format!(
                    "`default_ttl` is 0 (never expires) to {} seconds, not {seconds}",
                    Ttl::MAX_SECONDS
                ))
            })?),
        };
        if max_size_mb > Self::MAX_SIZE_MB {
            return Err(Invalid::Policy(format!(
                "`max_size_mb` is 0 (no limit) to {}, not {max_size_mb}",
                Self::MAX_SIZE_MB
            )));
        }
        Ok(Self { default_ttl, max_size_mb, eviction_policy: eviction_policy.parse()? })
    }

    /// `default_ttl` in seconds, 0 for never.
    pub fn default_ttl_seconds(&self) -> u64 {
        self.default_ttl.map_or(0, Ttl::as_seconds)
    }
}

/// Which entry makes room when a namespace is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EvictionPolicy {
    /// The least recently used.
    #[default]
    Lru,
    /// The least frequently used.
    Lfu,
    /// The oldest.
    Fifo,
    /// The one nearest to its expiry.
    Ttl,
    /// None: a write that does not fit is refused.
    None,
}

impl EvictionPolicy {
    pub const ALL: [Self; 5] = [Self::Lru, Self::Lfu, Self::Fifo, Self::Ttl, Self::None];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lru => "LRU",
            Self::Lfu => "LFU",
            Self::Fifo => "FIFO",
            Self::Ttl => "TTL",
            Self::None => "NONE",
        }
    }
}

impl FromStr for EvictionPolicy {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            Invalid::Policy(format!("`eviction_policy` is one of {names}, not {}", quoted(text)))
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
    fn wrong_fields_are_named() {
        for (ttl, size, name, field) in [
            (Ttl::MAX_SECONDS + 1, 0, "LRU", "default_ttl"),
            (0, Policy::MAX_SIZE_MB + 1, "LRU", "max_size_mb"),
            (0, 0, "lru", "eviction_policy"),
        ] {
            let error = Policy::parse(ttl, size, name).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
