//! A change of some fields of a policy.

use super::invalid::Invalid;
use super::policy::Policy;
use super::policy_fields::{PolicyFields, SomePolicyFields};

/// A change of some fields of a policy; the other fields stay unchanged.
#[derive(Clone, Debug)]
pub struct PolicyChange {
    fields: SomePolicyFields,
    /// Has the new values of the fields that change; its other fields mean nothing.
    values: Policy,
}

impl PolicyChange {
    /// Parses the fields that are present, as [`Policy::parse`] does.
    ///
    /// # Errors
    /// [`Invalid::Policy`] naming the field.
    pub fn parse(fields: SomePolicyFields) -> Result<Self, Invalid> {
        let values = Policy::parse(&fields.clone().over(PolicyFields::default()))?;
        Ok(Self { fields, values })
    }

    /// Whether no field is changed.
    pub fn is_empty(&self) -> bool {
        self.fields == SomePolicyFields::default()
    }

    /// The policy after the change.
    pub fn apply(&self, before: Policy) -> Policy {
        let Self { fields, values } = self;
        Policy {
            default_ttl: either(&fields.default_ttl, values.default_ttl, before.default_ttl),
            max_size_mb: either(&fields.max_size_mb, values.max_size_mb, before.max_size_mb),
            eviction_policy: either(&fields.eviction_policy, values.eviction_policy, before.eviction_policy),
            stale_if_error: either(&fields.stale_if_error, values.stale_if_error, before.stale_if_error),
            ttl_jitter: either(&fields.ttl_jitter, values.ttl_jitter, before.ttl_jitter),
            refresh_after: either(&fields.refresh_after, values.refresh_after, before.refresh_after),
            stale_while_revalidate: either(
                &fields.stale_while_revalidate,
                values.stale_while_revalidate,
                before.stale_while_revalidate,
            ),
            tombstone_ttl: either(&fields.tombstone_ttl, values.tombstone_ttl, before.tombstone_ttl),
        }
    }
}

/// `after` if the change has the field, else `before`.
fn either<F, T>(field: &Option<F>, after: T, before: T) -> T {
    if field.is_some() { after } else { before }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EvictionPolicy, Part, Ttl};

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let fields = PolicyFields {
            default_ttl: 60,
            max_size_mb: 5,
            eviction_policy: "LFU".to_owned(),
            stale_if_error: 30,
            ttl_jitter: 0.1,
            refresh_after: 0.8,
            stale_while_revalidate: 20,
            tombstone_ttl: 10,
        };
        let before = Policy::parse(&fields).unwrap();
        let changed = |fields: SomePolicyFields| PolicyChange::parse(fields).unwrap().apply(before);
        let none = SomePolicyFields::default;
        assert_eq!(changed(none()), before);
        assert!(PolicyChange::parse(none()).unwrap().is_empty());
        let ttl = || Ttl::from_seconds(7).unwrap();
        for (change, after) in [
            (SomePolicyFields { default_ttl: Some(0), ..none() }, Policy { default_ttl: None, ..before }),
            (SomePolicyFields { max_size_mb: Some(200), ..none() }, Policy { max_size_mb: 200, ..before }),
            (
                SomePolicyFields { eviction_policy: Some("NONE".to_owned()), stale_if_error: Some(0), ..none() },
                Policy { eviction_policy: EvictionPolicy::None, stale_if_error: None, ..before },
            ),
            (SomePolicyFields { ttl_jitter: Some(0.0), ..none() }, Policy { ttl_jitter: Part::NOTHING, ..before }),
            (SomePolicyFields { refresh_after: Some(1.0), ..none() }, Policy { refresh_after: Part::ALL, ..before }),
            (
                SomePolicyFields { stale_while_revalidate: Some(7), ..none() },
                Policy { stale_while_revalidate: Some(ttl()), ..before },
            ),
            (SomePolicyFields { tombstone_ttl: Some(7), ..none() }, Policy { tombstone_ttl: ttl(), ..before }),
        ] {
            assert_eq!(changed(change.clone()), after, "{change:?}");
            assert!(!PolicyChange::parse(change).unwrap().is_empty());
        }
        let wrong = SomePolicyFields { eviction_policy: Some("lru".to_owned()), ..none() };
        assert!(PolicyChange::parse(wrong).is_err());
    }
}
