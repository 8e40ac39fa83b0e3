//! `GET /dashboard`: the overview of the whole fleet on one page.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::address::{self, OVERVIEW};
use super::chart::{Series, rate, throughput};
use super::extract::Parameters;
use super::fleet_snapshot::{FleetSnapshot, NamespaceRow, Namespaces};
use super::page::{Page, Tile, bar, section, tiles};
use super::problem::Problem;
use super::state::{Dashboard, Shared};
use super::table_query::{Column, MAX_SEARCHED, Order, OverviewQuery, ROWS, TableQuery};
use super::topic::{Region, Topic};
use super::{fleet, latency};
use crate::clock::unix_millis;
use crate::number;
use crate::trends::Trends;

pub async fn get(
    State(dashboard): State<Shared>,
    Parameters(query): Parameters<OverviewQuery>,
) -> Result<Response, Problem> {
    let asked = TableQuery::parse(query)?;
    let snapshot = dashboard.snapshot().await;
    let rows = dashboard.rows();
    let search = html! {
        form.search role="search" method="get" action=(OVERVIEW) data-live {
            label.hidden for="q" { "Search namespaces by name" }
            input #q type="search" name="q" value=(asked.search) placeholder="Search namespaces" autocomplete="off"
                spellcheck="false" maxlength=(MAX_SEARCHED);
            @for (name, value) in asked.parameters() {
                @if name == "sort" || name == "order" { input type="hidden" name=(name) value=(value); }
            }
            button type="submit" { "Search" }
        }
    };
    let main = html! {
        h1.hidden { "Overview of the fleet" }
        (figures(&dashboard, &snapshot, &rows))
        (charts(&dashboard))
        section.card aria-labelledby="namespaces-heading" {
            div.head { h2 #namespaces-heading { "Namespaces" } (search) }
            (namespaces(&rows, &asked))
            (paging(&rows, &asked))
        }
        (section("shards", "Shards", "They store the entries", &fleet::shards(&snapshot)))
        (section("instances", "Instances", "All sidecaches that use these shards", &fleet::instances(&snapshot)))
        (section("latency", "Latency", "On this instance, in the last minute", &latency::row(dashboard.trends.latency(None))))
    };
    let events = Topic::Overview(asked).path();
    let page = Page { title: "Overview", events, condition: &snapshot.condition, trail: &[], main };
    Ok(page.respond(StatusCode::OK))
}

/// The regions that are updated while the page is open.
pub fn regions(dashboard: &Dashboard, snapshot: &FleetSnapshot, asked: &TableQuery) -> Vec<Region> {
    let rows = dashboard.rows();
    vec![
        ("figures", figures(dashboard, snapshot, &rows)),
        ("charts", charts(dashboard)),
        ("namespaces", namespaces(&rows, asked)),
        ("paging", paging(&rows, asked)),
        ("shards", fleet::shards(snapshot)),
        ("instances", fleet::instances(snapshot)),
        ("latency", latency::row(dashboard.trends.latency(None))),
    ]
}

fn figures(dashboard: &Dashboard, snapshot: &FleetSnapshot, rows: &Namespaces) -> Markup {
    let points = dashboard.trends.overview();
    let latest = points.last();
    let reads = latest.and_then(|point| point.reads_per_second);
    let hit_rate = latest.and_then(|point| point.hit_rate);
    let namespaces = rows.0.as_ref().map(|rows| rows.len() as u64);
    let known = || rows.known().iter().filter_map(NamespaceRow::totals);
    let (keys, bytes): (u64, u64) = known().fold((0, 0), |(keys, bytes), t| (keys + t.keys, bytes + t.bytes));
    let [keys, bytes] = [keys, bytes].map(|sum| namespaces.map(|_| sum));
    let p99 = dashboard.trends.latency(None).p99;
    let unknown = || number::UNKNOWN.to_owned();
    let of_what = if rows.known().iter().any(NamespaceRow::is_partial) {
        "partial: a shard does not answer"
    } else if namespaces.is_none() || known().count() < rows.known().len() {
        "some namespaces are not counted yet"
    } else if snapshot.shards.iter().any(|shard| shard.is_connected != Some(true)) {
        "last known numbers"
    } else {
        "in all namespaces"
    };
    let instances = snapshot.instances.as_ref().map(|instances| instances.len() as u64);
    let connected = snapshot.shards.iter().filter(|shard| shard.is_connected == Some(true)).count();
    tiles(
        "figures",
        &[
            Tile {
                stat: "reads_per_second",
                name: "Reads",
                raw: reads.map(|reads| format!("{reads:.3}")),
                shown: reads.map_or_else(unknown, number::rate),
                note: html! { "by the whole fleet" },
            },
            Tile {
                stat: "hit_rate_now",
                name: "Hit rate",
                raw: hit_rate.map(|rate| format!("{rate:.4}")),
                shown: hit_rate.map_or_else(unknown, number::percent),
                note: html! { "now" },
            },
            Tile {
                stat: "p99_seconds",
                name: "Latency, p99",
                raw: p99.map(|time| format!("{:.6}", time.as_secs_f64())),
                shown: p99.map_or_else(unknown, number::latency),
                note: html! { "on this instance, last minute" },
            },
            Tile {
                stat: "namespaces",
                name: "Namespaces",
                raw: namespaces.map(|count| count.to_string()),
                shown: namespaces.map_or_else(unknown, number::count),
                note: html! { "configured or written to" },
            },
            Tile {
                stat: "keys",
                name: "Keys",
                raw: keys.map(|keys| keys.to_string()),
                shown: keys.map_or_else(unknown, |keys| number::short(keys as f64)),
                note: html! { (of_what) },
            },
            Tile {
                stat: "bytes",
                name: "Values",
                raw: bytes.map(|bytes| bytes.to_string()),
                shown: bytes.map_or_else(unknown, number::bytes),
                note: html! { (of_what) },
            },
            Tile {
                stat: "shards",
                name: "Shards",
                raw: Some(connected.to_string()),
                shown: format!("{connected} of {}", snapshot.shards.len()),
                note: html! { "connected" },
            },
            Tile {
                stat: "instances",
                name: "Instances",
                raw: instances.map(|count| count.to_string()),
                shown: instances.map_or_else(unknown, number::count),
                note: html! { "alive" },
            },
        ],
    )
}

fn charts(dashboard: &Dashboard) -> Markup {
    let series = Series { points: dashboard.trends.overview(), interval: Trends::STEP, now: unix_millis() };
    let reads = series.line("reads", "reads", |point| point.reads_per_second);
    let hits = series.line("hits", "hits", |point| point.hit_rate);
    html! {
        div.charts #charts {
            (throughput("overview-reads", "Reads of the fleet", &[reads]).draw())
            (rate("overview-hits", "Hit rate of the fleet", &[hits]).draw())
        }
    }
}

fn namespaces(known: &Namespaces, asked: &TableQuery) -> Markup {
    let (rows, _) = asked.select(known.known());
    html! {
        table.cards #namespaces {
            caption.hidden { "Namespaces, their traffic and their contents" }
            thead {
                tr {
                    @for column in Column::ALL { (sortable(asked, column)) }
                }
            }
            tbody {
                @for row in &rows { (namespace_row(row)) }
                @if rows.is_empty() {
                    tr { td.none colspan="7" { (nothing_found(known, asked)) } }
                }
            }
        }
    }
}

fn nothing_found(rows: &Namespaces, asked: &TableQuery) -> Markup {
    if rows.0.is_none() {
        return html! { "The namespaces are not known yet: the database has not answered." };
    }
    if rows.known().is_empty() {
        return html! {
            "There is no namespace yet. The first write creates one: "
            code { "curl -X PUT localhost:8080/api/v1/cache/demo/hello -d '{\"value\": \"world\"}'" }
        };
    }
    html! { "No namespace has “" (asked.search) "” in its name." }
}

fn sortable(asked: &TableQuery, column: Column) -> Markup {
    let sorted = (asked.column == column).then_some(match asked.order {
        Order::Ascending => "ascending",
        Order::Descending => "descending",
    });
    html! {
        th scope="col" class=[(column != Column::Name).then_some("number")] aria-sort=[sorted] {
            a href=(asked.sorted_by(column).path()) data-sort=(column.as_str()) { (column.heading()) }
        }
    }
}

fn namespace_row(row: &NamespaceRow) -> Markup {
    let unknown = || number::UNKNOWN.to_owned();
    let totals = row.totals();
    let recent = row.recent.as_ref();
    let reads = recent.and_then(|recent| recent.reads_per_second);
    let hit_rate = recent.and_then(|recent| recent.hit_rate);
    let quota = row.record.policy.quota().max_bytes.map_or(0, std::num::NonZeroU64::get);
    let cell = |label: &str, raw: Option<String>, shown: String| {
        html! { td.number data-label=(label) data-value=[raw] { (shown) } }
    };
    html! {
        tr data-namespace=(row.name()) data-key=(row.name()) {
            th scope="row" { a href=(address::namespace(row.name())) { (row.name()) } }
            (cell("Reads", reads.map(|reads| format!("{reads:.3}")), reads.map_or_else(unknown, number::rate)))
            (cell("Hit rate", hit_rate.map(|rate| format!("{rate:.4}")), hit_rate.map_or_else(unknown, number::percent)))
            (cell("Keys", totals.map(|t| t.keys.to_string()), totals.map_or_else(unknown, |t| row.marked(number::count(t.keys)))))
            td.number data-label="Memory" data-value=[totals.map(|t| t.bytes)] {
                (totals.map_or_else(unknown, |t| number::bytes(t.bytes)))
                @if quota > 0 {
                    span.muted { ", " (totals.map_or_else(unknown, |t| number::bytes(t.charged))) " of " (number::bytes(quota)) }
                    (bar(totals.map_or(0, |t| t.charged), quota))
                }
            }
            (cell("Evictions", totals.map(|t| t.evictions.to_string()), totals.map_or_else(unknown, |t| number::count(t.evictions))))
            (cell("Expirations", totals.map(|t| t.expirations.to_string()), totals.map_or_else(unknown, |t| number::count(t.expirations))))
        }
    }
}

fn paging(known: &Namespaces, asked: &TableQuery) -> Markup {
    let (rows, all) = asked.select(known.known());
    let page = |from: usize| TableQuery { from, ..asked.clone() }.path();
    let from = asked.first_of(all);
    html! {
        div.paging #paging {
            @if all > ROWS || from > 0 {
                span.muted {
                    "Rows " (number::count(from as u64 + 1)) " to "
                    (number::count((from + rows.len()) as u64)) " of " (number::count(all as u64))
                }
                @if from > 0 {
                    a.button href=(page(from.saturating_sub(ROWS))) rel="prev" { "Previous" }
                }
                @if from + rows.len() < all {
                    a.button href=(page(from + ROWS)) rel="next" { "Next" }
                }
            }
        }
    }
}
