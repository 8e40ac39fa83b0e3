//! The latest rows of a namespace's audit trail.

use maud::{Markup, html};
use tokio::time::timeout;

use super::figure::headings;
use super::fleet_snapshot::PATIENCE;
use super::state::Dashboard;
use crate::audit::Row;
use crate::model::{Namespace, Policy};
use crate::number;

const ROWS: usize = 20;

/// The rows as a table, or a notice if the database does not answer.
pub async fn latest(dashboard: &Dashboard, namespace: &Namespace) -> Markup {
    let page = timeout(PATIENCE, dashboard.app.cache.audit(namespace, None, ROWS)).await;
    let rows = page.ok().and_then(Result::ok).map(|page| page.rows);
    html! {
        div #audit {
            @match rows.as_deref() {
                None => { p.notice { "The audit trail cannot be shown: the database does not answer." } }
                Some([]) => { p.none { "No changes of the policy and no flushes yet." } }
                Some(rows) => {
                    table.cards {
                        caption.hidden { "Changes of the policy and flushes" }
                        (headings(&["Time (UTC)", "Action", "Details", "Client"], &(0..0)))
                        tbody { @for row in rows { (change(row)) } }
                    }
                }
            }
        }
    }
}

fn change(row: &Row) -> Markup {
    html! {
        tr data-action=(row.action) {
            th scope="row" { time datetime=(row.at.to_rfc3339()) { (number::date(row.at)) } }
            td data-label="Action" { (action(&row.action)) }
            td data-label="Details" { (detail(row)) }
            td data-label="Client" title={ "Request " (row.request_id) } {
                (row.client)
                @if let Some(forwarded) = &row.forwarded_for { span.muted { " for " (forwarded) } }
            }
        }
    }
}

fn action(name: &str) -> &str {
    match name {
        "policy_created" => "Policy created",
        "policy_replaced" => "Policy replaced",
        "policy_deleted" => "Namespace deleted",
        "flush" => "Flush",
        "mark_stale" => "Marked as stale",
        other => other,
    }
}

fn detail(row: &Row) -> Markup {
    let deleted = row.deleted_count.map(|count| number::of(count, "entry", "entries"));
    html! {
        @match (&row.pattern, &row.tag) {
            (Some(pattern), _) => { "pattern " code { (pattern) } ", " }
            (_, Some(tag)) => { "tag " code { (tag) } ", " }
            _ if row.action == "flush" || row.action == "mark_stale" => { "all keys, " }
            _ => {}
        }
        @if row.action == "flush" || row.action == "policy_deleted" {
            @match (&deleted, row.is_complete) {
                (Some(deleted), true) => { (deleted) " deleted" }
                (Some(deleted), false) => { "stopped before the end, at least " (deleted) " deleted" }
                (None, _) => { "stopped before the end, it is unknown how many entries were deleted" }
            }
        }
        @if row.action == "mark_stale" {
            @match &deleted {
                Some(marked) => { (marked) " marked" @if !row.is_complete { ", stopped before the end" } }
                None => { "stopped before the end, it is unknown how many entries were marked" }
            }
        }
        @for line in policy_changes(row.before.as_ref(), row.after.as_ref()) { span.change { (line) } }
    }
}

/// The fields that a change of the policy changed, one per line.
fn policy_changes(before: Option<&Policy>, after: Option<&Policy>) -> Vec<String> {
    let fields = |policy: &Policy| {
        let fields = policy.fields();
        [
            ("default_ttl", fields.default_ttl.to_string()),
            ("max_size_mb", fields.max_size_mb.to_string()),
            ("eviction_policy", fields.eviction_policy),
            ("stale_if_error", fields.stale_if_error.to_string()),
            ("ttl_jitter", fields.ttl_jitter.to_string()),
            ("refresh_after", fields.refresh_after.to_string()),
            ("stale_while_revalidate", fields.stale_while_revalidate.to_string()),
            ("tombstone_ttl", fields.tombstone_ttl.to_string()),
        ]
    };
    match (before.map(fields), after.map(fields)) {
        (None, Some(after)) => after.map(|(name, value)| format!("{name} {value}")).to_vec(),
        (Some(before), Some(after)) => before
            .into_iter()
            .zip(after)
            .filter(|(before, after)| before != after)
            .map(|((name, before), (_, after))| format!("{name} {before} → {after}"))
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PolicyFields;

    #[test]
    fn only_the_fields_that_changed_are_shown() {
        let before = PolicyFields { max_size_mb: 1, ..PolicyFields::default() };
        let after = PolicyFields { default_ttl: 60, eviction_policy: "LFU".to_owned(), ..before.clone() };
        let (before, after) = (Policy::parse(&before).unwrap(), Policy::parse(&after).unwrap());
        let changes = policy_changes(Some(&before), Some(&after));
        assert_eq!(changes, ["default_ttl 0 → 60", "eviction_policy LRU → LFU"]);
        assert_eq!(policy_changes(None, Some(&after)).len(), 8);
        assert!(policy_changes(Some(&before), None).is_empty());
    }
}
