//! `GET /dashboard/namespaces/{ns}`: the page of a namespace.

use std::num::NonZeroU64;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use maud::{Markup, html};
use tokio::time::timeout;

use super::address;
use super::chart::{Chart, Series, Top, rate, throughput};
use super::extract::{NamespacePath, Parameters};
use super::fleet_snapshot::PATIENCE;
use super::form_token::Token;
use super::listing::{self, KeysQuery};
use super::page::{Page, Tile, bar, part, section, tiles};
use super::problem::Problem;
use super::state::{Dashboard, Shared};
use super::topic::{Region, Topic};
use super::{audit, flush, latency};
use crate::cache::{Error, Stats};
use crate::clock::unix_millis;
use crate::model::{Namespace, Policy, Ttl};
use crate::number;
use crate::store::{self, KnownTotals};

/// How many of the hottest keys are shown.
const TOP_KEYS: usize = 10;

pub async fn get(
    State(dashboard): State<Shared>,
    NamespacePath(namespace): NamespacePath,
    Parameters(query): Parameters<KeysQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = namespace.as_str();
    let keys = listing::KeySelection::try_from(query)?;
    let token = Token::of(&headers);
    let (snapshot, stats, listed, changes) = tokio::join!(
        dashboard.snapshot(),
        stats_of(&dashboard, &namespace),
        listing::list(&dashboard, &namespace, &keys),
        audit::latest(&dashboard, &namespace),
    );
    let main = html! {
        div.title {
            h1 { (name) }
            (policy_of(&dashboard, &namespace))
        }
        (figures(&dashboard, &namespace, stats.as_ref()))
        (charts(&dashboard, name))
        div.columns {
            (section("top-keys", "Hottest keys", "By recent reads on this instance", &top_keys(&dashboard, name)))
            (section("latency", "Latency", "On this instance, in the last minute", &latency::table(dashboard.trends.latency(Some(name)))))
        }
        (section("keys", "Keys", "", &listing::keys(&namespace, &keys, &listed?)))
        (section("flush", "Flush", "Deletes many entries at once. Before that, it shows how many entries would be deleted.", &flush::form(&namespace, &token)))
        (section("audit", "Audit trail", "Changes and who made them, latest first", &changes))
    };
    let events = Topic::Namespace(namespace.clone()).path();
    let trail = [(name, address::namespace(name))];
    let page = Page { title: name, events, condition: &snapshot.condition, trail: &trail, main };
    Ok(page.respond_with_forms(StatusCode::OK, &token))
}

/// The statistics from the shards that answer; `None` if no shard answered in time.
async fn stats_of(dashboard: &Dashboard, namespace: &Namespace) -> Option<KnownTotals> {
    timeout(PATIENCE, dashboard.app.cache.known_stats(namespace)).await.ok()?.ok()
}

/// The regions that are updated while the page is open.
pub async fn regions(dashboard: &Dashboard, namespace: &Namespace) -> Vec<Region> {
    let name = namespace.as_str();
    let (stats, changes) = tokio::join!(stats_of(dashboard, namespace), audit::latest(dashboard, namespace));
    vec![
        ("stats", figures(dashboard, namespace, stats.as_ref())),
        ("charts", charts(dashboard, name)),
        ("top-keys", top_keys(dashboard, name)),
        ("latency", latency::table(dashboard.trends.latency(Some(name)))),
        ("audit", changes),
    ]
}

fn figures(dashboard: &Dashboard, namespace: &Namespace, known: Option<&KnownTotals>) -> Markup {
    let stats = known.map(|known| &known.totals);
    let failed = known.map_or(&[][..], |known| &known.failed);
    let missing = store::Error::shards_of(failed).join(", ");
    let policy = match dashboard.app.cache.namespace(namespace) {
        Ok(record) => Some(record.policy),
        Err(Error::PoliciesUnknown) => None,
        Err(_) => Some(dashboard.app.cache.default_policy()),
    };
    let quota = policy.and_then(|policy| policy.quota().max_bytes).map_or(0, NonZeroU64::get);
    let unknown = || number::UNKNOWN.to_owned();
    let plain = |of: fn(&Stats) -> u64| stats.map(of);
    let tile = |stat, name, value: Option<u64>, note: Markup| Tile {
        stat,
        name,
        raw: value.map(|value| value.to_string()),
        shown: value.map_or_else(unknown, number::count),
        note,
    };
    let hit_rate = stats.map(hit_rate);
    let (bytes, charged) = (plain(|stats| stats.bytes), plain(|stats| stats.charged));
    tiles(
        "stats",
        &[
            Tile {
                stat: "hit_rate",
                name: "Hit rate",
                raw: hit_rate.map(|rate| rate.to_string()),
                shown: hit_rate.map_or_else(unknown, number::percent),
                note: html! { "of all reads so far" },
            },
            tile("hits", "Hits", plain(|stats| stats.hits), html! { "reads that found the key" }),
            tile("misses", "Misses", plain(|stats| stats.misses), html! { "reads that did not find it" }),
            tile(
                "total_keys",
                "Keys",
                plain(|stats| stats.keys),
                html! {
                    @if missing.is_empty() { "live now" }
                    @else { span data-missing=(missing) { "partial: without shard " (missing) } }
                },
            ),
            Tile {
                stat: "memory_used_bytes",
                name: "Values",
                raw: bytes.map(|bytes| bytes.to_string()),
                shown: bytes.map_or_else(unknown, number::bytes),
                note: html! {
                    @if quota > 0 {
                        "charged " (charged.map_or_else(unknown, number::bytes)) " of " (number::bytes(quota))
                        (bar(charged.unwrap_or(0), quota))
                    }
                    @else { "no quota" }
                },
            },
            tile("evictions", "Evictions", plain(|stats| stats.evictions), html! { "removed to make room" }),
            tile(
                "expirations",
                "Expirations",
                plain(|stats| stats.expirations),
                html! { "removed at the end of their TTL" },
            ),
        ],
    )
}

/// The hit rate, computed as in the API.
fn hit_rate(stats: &Stats) -> f64 {
    let reads = stats.hits + stats.misses;
    if reads == 0 { 0.0 } else { stats.hits as f64 / reads as f64 }
}

fn charts(dashboard: &Dashboard, name: &str) -> Markup {
    let trends = &dashboard.trends;
    let series = Series { points: trends.history(name), interval: trends.interval(), now: unix_millis() };
    let reads = series.line("reads", "reads", |point| point.reads_per_second);
    let writes = series.line("writes on this instance", "writes", |point| point.writes_per_second);
    let hits = series.line("hits", "hits", |point| point.hit_rate);
    let keys = series.line("keys", "keys", |point| point.keys.map(|keys| keys as f64));
    let bytes = series.line("values", "bytes", |point| point.bytes.map(|bytes| bytes as f64));
    let (traffic, hits, keys, bytes) = ([reads, writes], [hits], [keys], [bytes]);
    let shown_bytes = |value: f64| number::bytes(value as u64);
    html! {
        div.charts #charts {
            (throughput("chart-reads", "Reads and writes", &traffic).draw())
            (rate("chart-hits", "Hit rate", &hits).draw())
            (Chart { shown: number::short, ..throughput("chart-keys", "Keys", &keys) }.draw())
            (Chart { shown: shown_bytes, top: Top::Binary, ..throughput("chart-bytes", "Memory of values", &bytes) }.draw())
        }
    }
}

fn top_keys(dashboard: &Dashboard, name: &str) -> Markup {
    let keys = dashboard.trends.top_keys(name, TOP_KEYS);
    let most = keys.first().map_or(0, |(_, reads)| *reads);
    html! {
        table.plain #top-keys {
            caption.hidden { "Keys with the most reads" }
            thead { tr { th scope="col" { "Key" } th.number scope="col" { "Reads" } } }
            tbody {
                @for (key, reads) in &keys {
                    tr data-top-key=(key) data-key=(key) {
                        th scope="row" { a href=(address::key(name, key)) { (key) } }
                        td.number data-value=(reads) { (number::count(*reads)) (part(*reads, most)) }
                    }
                }
                @if keys.is_empty() { tr { td.none colspan="2" { "No recent reads on this instance." } } }
            }
        }
    }
}

/// The policy, or a note that it is unknown.
fn policy_of(dashboard: &Dashboard, namespace: &Namespace) -> Markup {
    let record = dashboard.app.cache.namespace(namespace);
    if matches!(record, Err(Error::PoliciesUnknown)) {
        return html! { p.muted #policy { "The policy of this namespace is not known yet. Until it is, writes are refused." } };
    }
    let is_own = record.is_ok();
    let policy = record.map_or_else(|_| dashboard.app.cache.default_policy(), |record| record.policy);
    let seconds = |ttl: Option<Ttl>, never: &str| {
        ttl.map_or_else(|| never.to_owned(), |ttl| number::span(std::time::Duration::from_secs(ttl.as_seconds())))
    };
    let Policy { default_ttl, max_size_mb, eviction_policy, stale_if_error } = policy;
    let quota = if max_size_mb == 0 { "none".to_owned() } else { number::bytes(max_size_mb << 20) };
    html! {
        dl.policy #policy {
            div { dt { "Default TTL" } dd { (seconds(default_ttl, "never expires")) } }
            div { dt { "Quota" } dd { (quota) } }
            div { dt { "Eviction" } dd { (eviction_policy) } }
            div { dt { "Stale if error" } dd { (seconds(stale_if_error, "off")) } }
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
