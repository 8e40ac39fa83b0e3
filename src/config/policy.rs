//! The settings of the policy that a namespace gets when a write creates it.

use std::ops::RangeInclusive;

use super::settings::{Error, Settings};
use crate::model::{Policy, PolicyFields, Ttl};

pub fn default_policy(settings: &Settings) -> Result<Policy, Error> {
    let seconds = |name, least| settings.number(name, least..=Ttl::MAX_SECONDS);
    let fields = PolicyFields {
        default_ttl: seconds("default_ttl", 0)?,
        max_size_mb: settings.number("default_max_size_mb", 0..=Policy::MAX_SIZE_MB)?,
        eviction_policy: settings.text("default_eviction_policy").to_owned(),
        stale_if_error: seconds("default_stale_if_error", 0)?,
        ttl_jitter: part(settings, "default_ttl_jitter", &Policy::TTL_JITTER)?,
        refresh_after: part(settings, "default_refresh_after", &Policy::REFRESH_AFTER)?,
        stale_while_revalidate: seconds("default_stale_while_revalidate", 0)?,
        tombstone_ttl: seconds("default_tombstone_ttl", 1)?,
    };
    // All numbers are checked above.
    Policy::parse(&fields).map_err(|reason| settings.error("default_eviction_policy", reason))
}

fn part(settings: &Settings, name: &str, range: &RangeInclusive<f64>) -> Result<f64, Error> {
    let expected = format!("a number from {} to {}", range.start(), range.end());
    settings.parse(name, &expected, |text| text.trim().parse().ok().filter(|number| range.contains(number)))
}
