//! `GET /dashboard`: the overview of the whole fleet on one page.

use std::cmp::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::address::{self, OVERVIEW, Parameters, with_query};
use super::chart::{Series, rate, throughput};
use super::events::{Region, Topic};
use super::facts::{Facts, Row, Rows};
use super::page::{Page, Tile, bar, section, tiles};
use super::problem::Problem;
use super::{Dashboard, Shared, fleet, latency, number};
use crate::clock::unix_millis;
use crate::http::Error;
use crate::trends::Trends;

/// Rows per page in the table of namespaces.
pub const ROWS: usize = 100;

/// A column of the table of namespaces, by which it can be sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Column {
    Name,
    Keys,
    Memory,
    HitRate,
    Reads,
    Evictions,
    Expirations,
}

impl Column {
    pub const ALL: [Self; 7] =
        [Self::Name, Self::Reads, Self::HitRate, Self::Keys, Self::Memory, Self::Evictions, Self::Expirations];

    fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Keys => "keys",
            Self::Memory => "memory",
            Self::HitRate => "hit_rate",
            Self::Reads => "reads",
            Self::Evictions => "evictions",
            Self::Expirations => "expirations",
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Self::Name => "Namespace",
            Self::Keys => "Keys",
            Self::Memory => "Memory",
            Self::HitRate => "Hit rate",
            Self::Reads => "Reads",
            Self::Evictions => "Evictions",
            Self::Expirations => "Expirations",
        }
    }

    fn compare(self, one: &Row, other: &Row) -> Ordering {
        let of = |row: &Row| {
            let totals = row.totals();
            let lately = row.lately.as_ref();
            match self {
                Self::Name => None,
                Self::Keys => totals.map(|totals| totals.keys as f64),
                Self::Memory => totals.map(|totals| totals.bytes as f64),
                Self::Evictions => totals.map(|totals| totals.evictions as f64),
                Self::Expirations => totals.map(|totals| totals.expirations as f64),
                Self::HitRate => lately.and_then(|lately| lately.hit_rate),
                Self::Reads => lately.and_then(|lately| lately.reads_per_second),
            }
        };
        match self {
            Self::Name => one.name().cmp(other.name()),
            // Unknown numbers sort below all others.
            _ => of(one).unwrap_or(-1.0).total_cmp(&of(other).unwrap_or(-1.0)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    Ascending,
    Descending,
}

/// Which namespaces to show, and in which order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// A part of the name, in lower case. The search ignores the case of letters.
    search: String,
    column: Column,
    order: Order,
    /// The first row.
    from: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverviewQuery {
    pub q: Option<String>,
    pub sort: Option<String>,
    pub order: Option<String>,
    pub from: Option<String>,
}

/// The longest text to search for, in characters. No name is longer.
const MOST_SEARCHED: usize = 100;

impl Asked {
    /// # Errors
    /// [`Error::InvalidQuery`] naming the parameter.
    pub fn parse(query: OverviewQuery) -> Result<Self, Error> {
        let OverviewQuery { q: search, sort, order, from } = query;
        let column = match sort.as_deref() {
            None => Column::Name,
            Some(name) => Column::ALL.into_iter().find(|column| column.as_str() == name).ok_or_else(|| {
                let names = Column::ALL.map(Column::as_str).join(", ");
                Error::InvalidQuery(format!("`sort` must be one of {names}, not {name:?}"))
            })?,
        };
        let order = match order.as_deref() {
            Some("asc") => Order::Ascending,
            Some("desc") => Order::Descending,
            None if column == Column::Name => Order::Ascending,
            None => Order::Descending,
            Some(other) => return Err(Error::InvalidQuery(format!("`order` must be asc or desc, not {other:?}"))),
        };
        let wrong = |text: &String| Error::InvalidQuery(format!("`from` must be the number of a row, not {text:?}"));
        let from = from.map_or(Ok(0), |text| text.parse().map_err(|_| wrong(&text)))?;
        let search = search.unwrap_or_default().trim().chars().take(MOST_SEARCHED).collect::<String>();
        Ok(Self { search: search.to_ascii_lowercase(), column, order, from })
    }

    /// The parameters of the query. Parameters with their default value are left out.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut parameters = vec![("q", self.search.clone())];
        let default = if self.column == Column::Name { Order::Ascending } else { Order::Descending };
        if self.column != Column::Name {
            parameters.push(("sort", self.column.as_str().to_owned()));
        }
        if self.order != default {
            let order = if self.order == Order::Ascending { "asc" } else { "desc" };
            parameters.push(("order", order.to_owned()));
        }
        if self.from > 0 {
            parameters.push(("from", self.from.to_string()));
        }
        parameters
    }

    fn path(&self) -> String {
        let parameters = self.parameters();
        let parameters: Vec<_> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
        with_query(OVERVIEW, &parameters)
    }

    /// The same, sorted by `column`. If it is sorted by that column already, the order is reversed.
    fn sorted_by(&self, column: Column) -> Self {
        let order = match (self.column == column, self.order) {
            (true, Order::Ascending) => Order::Descending,
            (true, Order::Descending) => Order::Ascending,
            (false, _) if column == Column::Name => Order::Ascending,
            (false, _) => Order::Descending,
        };
        Self { column, order, from: 0, ..self.clone() }
    }

    /// The first row that is shown. If `from` is past the end, the last page is shown.
    fn first_of(&self, all: usize) -> usize {
        if self.from < all { self.from } else { all.saturating_sub(1) / ROWS * ROWS }
    }

    /// The matching rows of this page, sorted, and the number of matching rows on all pages.
    fn select<'r>(&self, rows: &'r [Row]) -> (Vec<&'r Row>, usize) {
        let matches = |row: &&Row| row.name().to_ascii_lowercase().contains(&self.search);
        let mut found: Vec<&Row> = rows.iter().filter(matches).collect();
        found.sort_by(|one, other| {
            let ordering = self.column.compare(one, other);
            let ordering = if self.order == Order::Descending { ordering.reverse() } else { ordering };
            ordering.then_with(|| one.name().cmp(other.name()))
        });
        let all = found.len();
        (found.into_iter().skip(self.first_of(all)).take(ROWS).collect(), all)
    }
}

pub async fn get(
    State(dashboard): State<Shared>,
    Parameters(query): Parameters<OverviewQuery>,
) -> Result<Response, Problem> {
    let asked = Asked::parse(query)?;
    let facts = dashboard.facts().await;
    let rows = dashboard.rows();
    let search = html! {
        form.search role="search" method="get" action=(OVERVIEW) data-live {
            label.hidden for="q" { "Search namespaces by name" }
            input #q type="search" name="q" value=(asked.search) placeholder="Search namespaces" autocomplete="off"
                spellcheck="false" maxlength=(MOST_SEARCHED);
            @for (name, value) in asked.parameters() {
                @if name == "sort" || name == "order" { input type="hidden" name=(name) value=(value); }
            }
            button type="submit" { "Search" }
        }
    };
    let main = html! {
        h1.hidden { "Overview of the fleet" }
        (figures(&dashboard, &facts, &rows))
        (charts(&dashboard))
        section.card aria-labelledby="namespaces-heading" {
            div.head { h2 #namespaces-heading { "Namespaces" } (search) }
            (namespaces(&rows, &asked))
            (paging(&rows, &asked))
        }
        (section("shards", "Shards", "They store the entries", &fleet::shards(&facts)))
        (section("instances", "Instances", "All sidecaches that use these shards", &fleet::instances(&facts)))
        (section("latency", "Latency", "On this instance, in the last minute", &latency::row(dashboard.trends.latency(None))))
    };
    let events = Topic::Overview(asked).path();
    let page = Page { title: "Overview", events, condition: &facts.condition, trail: &[], main };
    Ok(page.respond(StatusCode::OK))
}

/// The regions that are updated while the page is open.
pub fn regions(dashboard: &Dashboard, facts: &Facts, asked: &Asked) -> Vec<Region> {
    let rows = dashboard.rows();
    vec![
        ("figures", figures(dashboard, facts, &rows)),
        ("charts", charts(dashboard)),
        ("namespaces", namespaces(&rows, asked)),
        ("paging", paging(&rows, asked)),
        ("shards", fleet::shards(facts)),
        ("instances", fleet::instances(facts)),
        ("latency", latency::row(dashboard.trends.latency(None))),
    ]
}

fn figures(dashboard: &Dashboard, facts: &Facts, rows: &Rows) -> Markup {
    let points = dashboard.trends.overview();
    let latest = points.last();
    let reads = latest.and_then(|point| point.reads_per_second);
    let hit_rate = latest.and_then(|point| point.hit_rate);
    let namespaces = rows.0.as_ref().map(|rows| rows.len() as u64);
    let known = || rows.known().iter().filter_map(Row::totals);
    let (keys, bytes): (u64, u64) = known().fold((0, 0), |(keys, bytes), t| (keys + t.keys, bytes + t.bytes));
    let [keys, bytes] = [keys, bytes].map(|sum| namespaces.map(|_| sum));
    let p99 = dashboard.trends.latency(None).p99;
    let unknown = || number::UNKNOWN.to_owned();
    let of_what = if rows.known().iter().any(Row::is_partial) {
        "partial: a shard does not answer"
    } else if namespaces.is_none() || known().count() < rows.known().len() {
        "not all are counted yet"
    } else if facts.shards.iter().any(|shard| shard.is_connected != Some(true)) {
        "as last known"
    } else {
        "in all namespaces"
    };
    let instances = facts.instances.as_ref().map(|instances| instances.len() as u64);
    let connected = facts.shards.iter().filter(|shard| shard.is_connected == Some(true)).count();
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
                shown: format!("{connected} of {}", facts.shards.len()),
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

fn namespaces(known: &Rows, asked: &Asked) -> Markup {
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

fn nothing_found(rows: &Rows, asked: &Asked) -> Markup {
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

fn sortable(asked: &Asked, column: Column) -> Markup {
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

fn namespace_row(row: &Row) -> Markup {
    let unknown = || number::UNKNOWN.to_owned();
    let totals = row.totals();
    let lately = row.lately.as_ref();
    let reads = lately.and_then(|lately| lately.reads_per_second);
    let hit_rate = lately.and_then(|lately| lately.hit_rate);
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

fn paging(known: &Rows, asked: &Asked) -> Markup {
    let (rows, all) = asked.select(known.known());
    let page = |from: usize| Asked { from, ..asked.clone() }.path();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Namespace, Policy, UnixMillis};
    use crate::namespaces::Record;
    use crate::store::Totals;
    use crate::trends::Summary;

    fn row(name: &str, keys: Option<u64>) -> Row {
        let lately = Summary {
            name: name.to_owned(),
            totals: keys.map(|keys| Totals { keys, ..Totals::default() }),
            partial_totals: None,
            reads_per_second: None,
            hit_rate: None,
            writes_per_second: 0.0,
            quota_bytes: 0,
        };
        let (created_at, updated_at) = (UnixMillis(0), UnixMillis(0));
        let (namespace, policy) = (Namespace::parse(name).unwrap(), Policy::parse(0, 0, "LRU", 0).unwrap());
        Row { record: Record { namespace, policy, created_at, updated_at }, lately: Some(lately) }
    }

    fn asked(search: &str, sort: Option<&str>, order: Option<&str>) -> Asked {
        let text = |text: &str| Some(text.to_owned());
        let (sort, order) = (sort.and_then(text), order.and_then(text));
        Asked::parse(OverviewQuery { q: text(search), sort, order, from: None }).unwrap()
    }

    #[test]
    fn rows_are_found_by_a_part_of_their_name_and_sorted_by_a_column() {
        let rows = [row("beta", Some(3)), row("Alpha", None), row("gamma", Some(3)), row("delta", Some(9))];
        let names = |asked: &Asked| asked.select(&rows).0.iter().map(|row| row.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&asked("", None, None)), ["Alpha", "beta", "delta", "gamma"]);
        assert_eq!(names(&asked(" ALPH ", None, None)), ["Alpha"]);
        assert_eq!(names(&asked("ta", Some("keys"), None)), ["delta", "beta"]);
        let by_keys = names(&asked("", Some("keys"), Some("asc")));
        assert_eq!(by_keys, ["Alpha", "beta", "gamma", "delta"], "unknown numbers sort below all others");
    }

    #[test]
    fn a_page_has_a_bounded_number_of_rows() {
        let rows: Vec<Row> = (0..250).map(|i| row(&format!("n{i:03}"), Some(i))).collect();
        let last = Asked { from: 200, ..asked("", None, None) };
        let (shown, all) = last.select(&rows);
        assert_eq!((shown.len(), all, shown[0].name()), (50, 250, "n200"));
        assert_eq!(asked("", None, None).select(&rows).0.len(), ROWS);
        for from in [250, usize::MAX] {
            let past = Asked { from, ..asked("", None, None) };
            assert_eq!(past.select(&rows).0[0].name(), "n200", "past the end, the last page is shown");
            assert_eq!(past.first_of(0), 0);
        }
    }

    #[test]
    fn a_heading_sorts_and_then_reverses_the_order() {
        let by_name = asked("x", None, None);
        let by_keys = by_name.sorted_by(Column::Keys);
        assert_eq!(by_keys.path(), "/dashboard?q=x&sort=keys");
        assert_eq!(by_keys.sorted_by(Column::Keys).path(), "/dashboard?q=x&sort=keys&order=asc");
        assert_eq!(by_keys.sorted_by(Column::Name), by_name);
        assert_eq!(by_name.sorted_by(Column::Name).path(), "/dashboard?q=x&order=desc");
    }
}
