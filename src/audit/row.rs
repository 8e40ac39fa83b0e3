//! A record in the form of a database row.

use super::record::{Change, Outcome, Record};
use crate::database::Error;
use crate::model::{Policy, PolicyFields, UnixMillis};

/// One row of `cache_audit`, without its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub namespace: String,
    pub at: UnixMillis,
    pub client: String,
    pub forwarded_for: Option<String>,
    pub request_id: String,
    pub action: String,
    pub before: Option<Policy>,
    pub after: Option<Policy>,
    pub pattern: Option<String>,
    pub tag: Option<String>,
    /// `None` if the change concerns no entries or their number is unknown.
    pub deleted_count: Option<u64>,
    /// False for a flush that failed or was cancelled.
    pub is_complete: bool,
}

impl From<Record> for Row {
    fn from(Record { namespace, at, origin, change }: Record) -> Self {
        let mut row = Self {
            namespace: namespace.to_string(),
            at,
            client: origin.client().to_string(),
            forwarded_for: origin.forwarded_for().map(str::to_owned),
            request_id: origin.request_id().to_owned(),
            action: String::new(),
            before: None,
            after: None,
            pattern: None,
            tag: None,
            deleted_count: None,
            is_complete: true,
        };
        let action = match change {
            Change::PolicyCreated { after } => {
                row.after = Some(after);
                "policy_created"
            }
            Change::PolicyReplaced { before, after } => {
                (row.before, row.after) = (Some(before), Some(after));
                "policy_replaced"
            }
            Change::PolicyDeleted { before, deleted } => {
                (row.before, row.deleted_count) = (Some(before), Some(deleted));
                "policy_deleted"
            }
            Change::Flush { selection, is_mark, outcome } => {
                let (pattern, tag) = selection.pattern_and_tag();
                (row.pattern, row.tag) = (pattern.map(str::to_owned), tag.map(str::to_owned));
                (row.deleted_count, row.is_complete) = match outcome {
                    Outcome::Complete { deleted } => (Some(deleted), true),
                    Outcome::Partial { deleted } => (Some(deleted), false),
                    Outcome::Abandoned => (None, false),
                };
                if is_mark { "mark_stale" } else { "flush" }
            }
        };
        row.action = action.to_owned();
        row
    }
}

pub(super) fn policy_to_json(policy: Option<&Policy>) -> Option<String> {
    policy.map(|policy| serde_json::to_string(&policy.fields()).expect("a struct of numbers and text"))
}

fn policy_from_json(text: Option<String>) -> Result<Option<Policy>, Error> {
    let parse = |text: String| {
        let fields: PolicyFields = serde_json::from_str(&text).map_err(unreadable)?;
        Policy::parse(&fields).map_err(unreadable)
    };
    text.map(parse).transpose()
}

/// Parses a policy. `None` if this release does not understand it (a later release may have written it): the row is
/// then shown without the policy.
fn understood(text: Option<String>) -> Option<Policy> {
    policy_from_json(text).unwrap_or_else(|error| {
        tracing::debug!(%error, "cannot understand a policy in the audit trail; showing the row without it");
        None
    })
}

fn unreadable(reason: impl std::error::Error) -> Error {
    Error::Row { table: "cache_audit", reason: reason.to_string() }
}

/// A row as both databases return it: id, time (Unix ms), client, `forwarded_for`, request id, action, before, after,
/// pattern, tag, `deleted_count`, complete.
pub(super) type PageRow = (
    i64,
    i64,
    String,
    Option<String>,
    String,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<i64>,
    bool,
);

impl Row {
    /// The row's id, and the row.
    pub(super) fn from_found(namespace: &str, found: PageRow) -> Result<(i64, Self), Error> {
        let (id, at, client, forwarded_for, request_id, action, before, after, pattern, tag, deleted, is_complete) =
            found;
        let unsigned = |number: i64| u64::try_from(number).map_err(unreadable);
        let row = Self {
            namespace: namespace.to_owned(),
            at: UnixMillis(unsigned(at)?),
            client,
            forwarded_for,
            request_id,
            action,
            before: understood(before),
            after: understood(after),
            pattern,
            tag,
            deleted_count: deleted.map(unsigned).transpose()?,
            is_complete,
        };
        Ok((id, row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_round_trip() {
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
        let policy = Policy::parse(&fields).unwrap();
        assert_eq!(policy_from_json(policy_to_json(Some(&policy))).unwrap(), Some(policy));
        assert_eq!(policy_from_json(policy_to_json(None)).unwrap(), None);
        let old = r#"{"default_ttl":60,"max_size_mb":5,"eviction_policy":"LFU"}"#.to_owned();
        let rest = PolicyFields::default();
        let fields = PolicyFields { default_ttl: 60, max_size_mb: 5, eviction_policy: "LFU".to_owned(), ..rest };
        let without = Policy::parse(&fields).unwrap();
        assert_eq!(policy_from_json(Some(old)).unwrap(), Some(without), "a row of an earlier release");
        for text in ["", "{}", r#"{"default_ttl":0,"max_size_mb":0,"eviction_policy":"MRU"}"#] {
            assert!(policy_from_json(Some(text.to_owned())).is_err(), "{text}");
        }
    }
}
