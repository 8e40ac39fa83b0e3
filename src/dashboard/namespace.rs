//! `GET /dashboard/namespaces/{ns}`: the page of a namespace.

use std::num::NonZeroU64;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use maud::{Markup, html};
use tokio::time::timeout;

use super::address::{self, namespace_of};
use super::chart::{BYTES, COUNT, PER_SECOND, PERCENT, Series, chart};
use super::figure::{Figure, bar, headings, known, latency_table, part, tile};
use super::fleet_snapshot::PATIENCE;
use super::listing::{self, KeysQuery};
use super::page::{Page, section};
use super::problem::Problem;
use super::state::{Dashboard, Shared};
use super::topic::{Region, Topic};
use super::{audit, flush, form};
use crate::cache::{Error, Stats};
use crate::clock::unix_millis;
use crate::http::query;
use crate::model::{Namespace, Part, Policy, Ttl};
use crate::number;
use crate::store::{self, KnownTotals};
use crate::trends::LeaseCounts;

/// How many of the hottest keys are shown.
const TOP_KEYS: usize = 10;

pub async fn get(State(dashboard): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let namespace = namespace_of(&uri)?;
    let keys = query::<KeysQuery>(&uri)?;
    let token = form::token(&headers);
    let (snapshot, listed, regions) = tokio::join!(
        dashboard.snapshot(),
        listing::list(&dashboard, &namespace, &keys),
        regions(&dashboard, &namespace),
    );
    let [stats, charts, top_keys, latency, changes] = regions.map(|(_, region)| region);
    let main = html! {
        div.title {
            h1 { (namespace.as_str()) }
            (show_policy(&dashboard, &namespace))
        }
        (stats)
        (charts)
        div.columns {
            (section("top-keys", "Hottest keys", "By recent reads on this instance", &top_keys))
            (section("latency", "Latency", "On this instance, in the last minute", &latency))
        }
        (section("keys", "Keys", "", &listing::keys(&namespace, &keys, &listed?)))
        (section("flush", "Flush", "Deletes many entries at once. Before that, it shows how many entries would be deleted.", &flush::form(&namespace, &token)))
        (section("audit", "Audit trail", "Changes and who made them, latest first", &changes))
    };
    let (title, topic) = (namespace.as_str(), Topic::Namespace(namespace.clone()));
    let page = Page { title, topic, condition: &snapshot.condition, namespace: None, main };
    Ok(form::with_cookie(page.respond(StatusCode::OK), &token))
}

/// The regions that are updated while the page is open.
pub async fn regions(dashboard: &Dashboard, namespace: &Namespace) -> [Region; 5] {
    let name = namespace.as_str();
    let totals = timeout(PATIENCE, dashboard.app.cache.known_stats(namespace));
    let (totals, changes) = tokio::join!(totals, audit::latest(dashboard, namespace));
    // `None` if no shard answered in time.
    let totals = totals.ok().and_then(Result::ok);
    [
        ("stats", figures(dashboard, namespace, totals.as_ref())),
        ("charts", charts(dashboard, name)),
        ("top-keys", top_keys(dashboard, name)),
        ("latency", latency_table(dashboard.app.trends.latency(Some(name)))),
        ("audit", changes),
    ]
}

fn figures(dashboard: &Dashboard, namespace: &Namespace, totals: Option<&KnownTotals>) -> Markup {
    let stats = totals.map(|totals| &totals.totals);
    let missing = totals.map(|totals| store::Error::shards_of(&totals.failed).join(", ")).unwrap_or_default();
    let quota =
        policy(dashboard, namespace).and_then(|(policy, _)| policy.quota().max_bytes).map_or(0, NonZeroU64::get);
    let hit_rate = stats.map(hit_rate);
    let hit_rate = Figure { raw: hit_rate.map(|rate| rate.to_string()), ..Figure::percent(hit_rate) };
    let count = |of: fn(&Stats) -> u64| Figure::count(stats.map(of));
    let charged = stats.map(|stats| stats.charged);
    let keys_note = html! {
        @if missing.is_empty() { "live now" }
        @else { span data-missing=(missing) { "partial: without shard " (missing) } }
    };
    let bytes_note = html! {
        @if quota > 0 {
            "charged " (known(charged, number::bytes)) " of " (number::bytes(quota))
            (bar(charged.unwrap_or(0), quota))
        }
        @else { "no quota" }
    };
    html! {
        dl.tiles #stats {
            (tile("hit_rate", "Hit rate", &hit_rate, "of all reads so far"))
            (tile("hits", "Hits", &count(|stats| stats.hits), "reads that found the key"))
            (tile("misses", "Misses", &count(|stats| stats.misses), "reads that did not find it"))
            (tile("total_keys", "Keys", &count(|stats| stats.keys), &keys_note))
            (tile("memory_used_bytes", "Values", &Figure::bytes(stats.map(|stats| stats.bytes)), &bytes_note))
            (tile("evictions", "Evictions", &count(|stats| stats.evictions), "removed to make room"))
            (tile("expirations", "Expirations", &count(|stats| stats.expirations), "removed at the end of their TTL"))
            (leases(dashboard.app.trends.leases(namespace.as_str())))
        }
    }
}

/// What became of leases. Nothing is shown where nobody uses them.
fn leases(counts: LeaseCounts) -> Markup {
    if counts == LeaseCounts::default() {
        return Markup::default();
    }
    let LeaseCounts { won, held, filled, lost } = counts;
    let notes = [("filled", "filled", filled), ("lost", "lost", lost), ("held", "refused", held)];
    let note = html! {
        "on this instance; "
        @for (i, (name, word, count)) in notes.into_iter().enumerate() {
            @if i > 0 { ", " }
            span data-leases=(name) data-value=(count) { (number::count(count)) " " (word) }
        }
    };
    tile("leases", "Leases given", &Figure::count(Some(won)), &note)
}

/// The hit rate, computed as in the API.
fn hit_rate(stats: &Stats) -> f64 {
    let reads = stats.hits + stats.misses;
    if reads == 0 { 0.0 } else { stats.hits as f64 / reads as f64 }
}

fn charts(dashboard: &Dashboard, name: &str) -> Markup {
    let trends = &dashboard.app.trends;
    let series = Series { points: trends.history(name), interval: trends.interval(), now: unix_millis() };
    let reads = series.line("reads", "reads", |point| point.reads_per_second);
    let writes = series.line("writes on this instance", "writes", |point| point.writes_per_second);
    let hits = series.line("hits", "hits", |point| point.hit_rate);
    let keys = series.line("keys", "keys", |point| point.keys.map(|keys| keys as f64));
    let bytes = series.line("values", "bytes", |point| point.bytes.map(|bytes| bytes as f64));
    html! {
        div.charts #charts {
            (chart("chart-reads", "Reads and writes", &PER_SECOND, &[reads, writes]))
            (chart("chart-hits", "Hit rate", &PERCENT, &[hits]))
            (chart("chart-keys", "Keys", &COUNT, &[keys]))
            (chart("chart-bytes", "Memory of values", &BYTES, &[bytes]))
        }
    }
}

fn top_keys(dashboard: &Dashboard, name: &str) -> Markup {
    let keys = dashboard.app.trends.top_keys(name, TOP_KEYS);
    let most = keys.first().map_or(0, |(_, reads)| *reads);
    html! {
        table #top-keys {
            caption.hidden { "Keys with the most reads" }
            (headings(&["Key", "Reads"], &(1..2)))
            tbody {
                @for (key, reads) in &keys {
                    tr data-top-key=(key) data-key=(key) {
                        th scope="row" { a href=(address::entry(name, key)) { (key) } }
                        td.number data-value=(reads) { (number::count(*reads)) (part(*reads, most)) }
                    }
                }
                @if keys.is_empty() { tr { td.none colspan="2" { "No recent reads on this instance." } } }
            }
        }
    }
}

/// The policy of the namespace, and whether it is its own: a namespace that does not exist gets the default policy.
/// `None` if the policy is not known yet.
fn policy(dashboard: &Dashboard, namespace: &Namespace) -> Option<(Policy, bool)> {
    match dashboard.app.cache.namespace(namespace) {
        Ok(record) => Some((record.policy, true)),
        Err(Error::PoliciesUnknown) => None,
        Err(_) => Some((dashboard.app.cache.default_policy(), false)),
    }
}

/// The policy, or a note that it is unknown.
fn show_policy(dashboard: &Dashboard, namespace: &Namespace) -> Markup {
    let Some((policy, is_own)) = policy(dashboard, namespace) else {
        return html! { p.muted #policy { "The policy of this namespace is not known yet. Until it is, writes are refused." } };
    };
    let seconds = |ttl: Option<Ttl>, never: &str| {
        ttl.map_or_else(|| never.to_owned(), |ttl| number::span(Duration::from_secs(ttl.as_seconds())))
    };
    let part = |part: Part, off: Part| {
        if part == off { "off".to_owned() } else { format!("{} of the TTL", number::percent(part.as_f64())) }
    };
    let Policy { max_size_mb, .. } = policy;
    let quota = if max_size_mb == 0 { "none".to_owned() } else { number::bytes(max_size_mb << 20) };
    html! {
        dl.policy #policy {
            div { dt { "Default TTL" } dd { (seconds(policy.default_ttl, "never expires")) } }
            div { dt { "Quota" } dd { (quota) } }
            div { dt { "Eviction" } dd { (policy.eviction_policy) } }
            div { dt { "Stale if error" } dd { (seconds(policy.stale_if_error, "off")) } }
            div { dt { "TTL jitter" } dd { (part(policy.ttl_jitter, Part::NOTHING)) } }
            div { dt { "Refresh after" } dd { (part(policy.refresh_after, Part::ALL)) } }
            div { dt { "Stale while revalidate" } dd { (seconds(policy.stale_while_revalidate, "off")) } }
            div { dt { "Tombstones" } dd { (seconds(Some(policy.tombstone_ttl), "off")) } }
        }
        @if !is_own {
            p.muted { "This namespace does not exist yet. These are the defaults for a new one." }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hit_rate_without_reads_is_zero_as_in_the_api() {
        assert_eq!(hit_rate(&Stats::default()), 0.0);
        assert_eq!(hit_rate(&Stats { hits: 1, misses: 3, ..Stats::default() }), 0.25);
    }
}
