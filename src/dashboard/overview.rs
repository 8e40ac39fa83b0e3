//! `GET /dashboard`: the overview of the whole fleet on one page.

use std::num::NonZeroU64;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use maud::{Markup, html};

use super::address::{self, OVERVIEW};
use super::chart::{PER_SECOND, PERCENT, Series, chart};
use super::figure::{Figure, bar, cell, cell_with, known, latency_row, tile};
use super::fleet;
use super::fleet_snapshot::{CONNECTED, FleetSnapshot};
use super::page::{Page, section};
use super::problem::Problem;
use super::state::{Dashboard, Shared};
use super::table_query::{COLUMNS, MAX_SEARCHED, NAME, NamespaceRow, Order, OverviewQuery, ROWS, TableQuery};
use super::topic::{Region, Topic};
use crate::clock::unix_millis;
use crate::http::query;
use crate::number;
use crate::trends::Trends;

pub async fn get(State(dashboard): State<Shared>, uri: Uri) -> Result<Response, Problem> {
    let table = TableQuery::parse(query::<OverviewQuery>(&uri)?)?;
    let snapshot = dashboard.snapshot().await;
    let regions = regions(&dashboard, &snapshot, &table);
    let [figures, charts, namespaces, paging, shards, instances, latency] = regions.map(|(_, region)| region);
    let main = html! {
        h1.hidden { "Overview of the fleet" }
        (figures)
        (charts)
        section.card aria-labelledby="namespaces-heading" {
            div.head { h2 #namespaces-heading { "Namespaces" } (search(&table)) }
            (namespaces)
            (paging)
        }
        (section("shards", "Shards", "They store the entries", &shards))
        (section("instances", "Instances", "All sidecaches that use these shards", &instances))
        (section("latency", "Latency", "On this instance, in the last minute", &latency))
    };
    let (topic, condition) = (Topic::Overview(table), &snapshot.condition);
    let page = Page { title: "Overview", topic, condition, namespace: None, main };
    Ok(page.respond(StatusCode::OK))
}

/// The form that searches namespaces. It keeps the order of the table.
fn search(table: &TableQuery) -> Markup {
    html! {
        form.search role="search" method="get" action=(OVERVIEW) data-live {
            label.hidden for="q" { "Search namespaces by name" }
            input #q type="search" name="q" value=(table.search) placeholder="Search namespaces" autocomplete="off"
                spellcheck="false" maxlength=(MAX_SEARCHED);
            @for (name, value) in table.parameters() {
                @if name == "sort" || name == "order" { input type="hidden" name=(name) value=(value); }
            }
            button type="submit" { "Search" }
        }
    }
}

/// The regions that are updated while the page is open.
pub fn regions(dashboard: &Dashboard, snapshot: &FleetSnapshot, table: &TableQuery) -> [Region; 7] {
    let rows = dashboard.namespaces();
    let rows = rows.as_deref();
    [
        ("figures", figures(dashboard, snapshot, rows)),
        ("charts", charts(dashboard)),
        ("namespaces", namespaces(rows, table)),
        ("paging", paging(rows, table)),
        ("shards", fleet::shards(snapshot)),
        ("instances", fleet::instances(snapshot)),
        ("latency", latency_row(dashboard.app.trends.latency(None))),
    ]
}

fn figures(dashboard: &Dashboard, snapshot: &FleetSnapshot, rows: Option<&[NamespaceRow]>) -> Markup {
    let points = dashboard.app.trends.overview();
    let latest = points.last();
    let p99 = dashboard.app.trends.latency(None).p99;
    let namespaces = rows.map(|rows| rows.len() as u64);
    let rows = rows.unwrap_or_default();
    let totals: Vec<_> = rows.iter().filter_map(NamespaceRow::totals).collect();
    let keys = namespaces.map(|_| totals.iter().map(|totals| totals.keys).sum::<u64>());
    let bytes = namespaces.map(|_| totals.iter().map(|totals| totals.bytes).sum());
    let keys = Figure { shown: known(keys, |keys| number::short(keys as f64)), ..Figure::count(keys) };
    let connected = snapshot.shards.iter().filter(|shard| shard.state() == CONNECTED).count();
    let of_what = if rows.iter().any(NamespaceRow::is_partial) {
        "partial: a shard does not answer"
    } else if namespaces.is_none() || totals.len() < rows.len() {
        "some namespaces are not counted yet"
    } else if connected < snapshot.shards.len() {
        "last known numbers"
    } else {
        "in all namespaces"
    };
    let instances = snapshot.instances.as_ref().map(|instances| instances.len() as u64);
    let shards =
        Figure { raw: Some(connected.to_string()), shown: format!("{connected} of {}", snapshot.shards.len()) };
    html! {
        dl.tiles #figures {
            (tile("reads_per_second", "Reads", &Figure::rate(latest.and_then(|point| point.reads_per_second)), "by the whole fleet"))
            (tile("hit_rate_now", "Hit rate", &Figure::percent(latest.and_then(|point| point.hit_rate)), "now"))
            (tile("p99_seconds", "Latency, p99", &Figure::latency(p99), "on this instance, last minute"))
            (tile("namespaces", "Namespaces", &Figure::count(namespaces), "configured or written to"))
            (tile("keys", "Keys", &keys, of_what))
            (tile("bytes", "Values", &Figure::bytes(bytes), of_what))
            (tile("shards", "Shards", &shards, "connected"))
            (tile("instances", "Instances", &Figure::count(instances), "alive"))
        }
    }
}

fn charts(dashboard: &Dashboard) -> Markup {
    let series = Series { points: dashboard.app.trends.overview(), interval: Trends::STEP, now: unix_millis() };
    let reads = series.line("reads", "reads", |point| point.reads_per_second);
    let hits = series.line("hits", "hits", |point| point.hit_rate);
    html! {
        div.charts #charts {
            (chart("overview-reads", "Reads of the fleet", &PER_SECOND, &[reads]))
            (chart("overview-hits", "Hit rate of the fleet", &PERCENT, &[hits]))
        }
    }
}

fn namespaces(known: Option<&[NamespaceRow]>, table: &TableQuery) -> Markup {
    let (rows, _) = table.select(known.unwrap_or_default());
    html! {
        table.cards #namespaces {
            caption.hidden { "Namespaces, their traffic and their contents" }
            thead {
                tr {
                    @for column in 0..COLUMNS.len() { (sortable(table, column)) }
                }
            }
            tbody {
                @for row in &rows { (namespace_row(row)) }
                @if rows.is_empty() {
                    tr { td.none colspan="7" { (nothing_found(known, table)) } }
                }
            }
        }
    }
}

fn nothing_found(known: Option<&[NamespaceRow]>, table: &TableQuery) -> Markup {
    match known {
        None => html! { "The namespaces are not known yet: the database has not answered." },
        Some([]) => html! {
            "There is no namespace yet. The first write creates one: "
            code { "curl -X PUT localhost:8080/api/v1/cache/demo/hello -d '{\"value\": \"world\"}'" }
        },
        Some(_) => html! { "No namespace has “" (table.search) "” in its name." },
    }
}

/// The heading of a column. It is a link that sorts the table.
fn sortable(table: &TableQuery, column: usize) -> Markup {
    let sorted = (table.column == column).then_some(match table.order {
        Order::Ascending => "ascending",
        Order::Descending => "descending",
    });
    html! {
        th scope="col" class=[(column != NAME).then_some("number")] aria-sort=[sorted] {
            a href=(table.sorted_by(column).path()) data-sort=(COLUMNS[column].name) { (COLUMNS[column].heading) }
        }
    }
}

fn namespace_row(row: &NamespaceRow) -> Markup {
    let (totals, recent) = (row.totals(), row.recent.as_ref());
    let keys = Figure::count(totals.map(|totals| totals.keys));
    let keys = if row.is_partial() { Figure { shown: format!("{} (partial)", keys.shown), ..keys } } else { keys };
    let quota = row.record.policy.quota().max_bytes.map_or(0, NonZeroU64::get);
    let charged = totals.map(|totals| totals.charged);
    let used = html! {
        @if quota > 0 {
            span.muted { ", " (known(charged, number::bytes)) " of " (number::bytes(quota)) }
            (bar(charged.unwrap_or(0), quota))
        }
    };
    html! {
        tr data-namespace=(row.name()) data-key=(row.name()) {
            th scope="row" { a href=(address::namespace(row.name())) { (row.name()) } }
            (cell("Reads", &Figure::rate(recent.and_then(|recent| recent.reads_per_second))))
            (cell("Hit rate", &Figure::percent(recent.and_then(|recent| recent.hit_rate))))
            (cell("Keys", &keys))
            (cell_with("Memory", &Figure::bytes(totals.map(|totals| totals.bytes)), &used))
            (cell("Evictions", &Figure::count(totals.map(|totals| totals.evictions))))
            (cell("Expirations", &Figure::count(totals.map(|totals| totals.expirations))))
        }
    }
}

fn paging(known: Option<&[NamespaceRow]>, table: &TableQuery) -> Markup {
    let (rows, all) = table.select(known.unwrap_or_default());
    let page = |from: usize| TableQuery { from, ..table.clone() }.path();
    let from = table.first_of(all);
    let end = from + rows.len();
    html! {
        div.paging #paging {
            @if all > ROWS || from > 0 {
                span.muted {
                    "Rows " (number::count(from as u64 + 1)) " to " (number::count(end as u64)) " of " (number::count(all as u64))
                }
                @if from > 0 { a.button href=(page(from.saturating_sub(ROWS))) rel="prev" { "Previous" } }
                @if end < all { a.button href=(page(from + ROWS)) rel="next" { "Next" } }
            }
        }
    }
}
