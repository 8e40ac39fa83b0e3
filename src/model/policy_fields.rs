//! The fields of a policy as requests, settings and rows have them, before they are checked.

use serde::{Deserialize, Serialize};

/// All fields of a policy. Numbers of seconds are 0 for "never" or "off".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyFields {
    pub default_ttl: u64,
    pub max_size_mb: u64,
    pub eviction_policy: String,
    // Rows of earlier releases do not have the fields below.
    #[serde(default)]
    pub stale_if_error: u64,
    #[serde(default)]
    pub ttl_jitter: f64,
    #[serde(default = "refresh_is_off")]
    pub refresh_after: f64,
    #[serde(default)]
    pub stale_while_revalidate: u64,
    #[serde(default = "a_minute")]
    pub tombstone_ttl: u64,
}

fn refresh_is_off() -> f64 {
    1.0
}

fn a_minute() -> u64 {
    60
}

impl Default for PolicyFields {
    /// No TTL, no quota, and every feature that can be off is off.
    fn default() -> Self {
        Self {
            default_ttl: 0,
            max_size_mb: 0,
            eviction_policy: "LRU".to_owned(),
            stale_if_error: 0,
            ttl_jitter: 0.0,
            refresh_after: refresh_is_off(),
            stale_while_revalidate: 0,
            tombstone_ttl: a_minute(),
        }
    }
}

/// Some fields of a policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SomePolicyFields {
    pub default_ttl: Option<u64>,
    pub max_size_mb: Option<u64>,
    pub eviction_policy: Option<String>,
    pub stale_if_error: Option<u64>,
    pub ttl_jitter: Option<f64>,
    pub refresh_after: Option<f64>,
    pub stale_while_revalidate: Option<u64>,
    pub tombstone_ttl: Option<u64>,
}

impl SomePolicyFields {
    /// All fields: these, and the others from `rest`.
    pub fn over(self, rest: PolicyFields) -> PolicyFields {
        PolicyFields {
            default_ttl: self.default_ttl.unwrap_or(rest.default_ttl),
            max_size_mb: self.max_size_mb.unwrap_or(rest.max_size_mb),
            eviction_policy: self.eviction_policy.unwrap_or(rest.eviction_policy),
            stale_if_error: self.stale_if_error.unwrap_or(rest.stale_if_error),
            ttl_jitter: self.ttl_jitter.unwrap_or(rest.ttl_jitter),
            refresh_after: self.refresh_after.unwrap_or(rest.refresh_after),
            stale_while_revalidate: self.stale_while_revalidate.unwrap_or(rest.stale_while_revalidate),
            tombstone_ttl: self.tombstone_ttl.unwrap_or(rest.tombstone_ttl),
        }
    }
}
