//! Numbers on the pages: as large tiles, in tables, and as bars; and the latencies of operations, as percentiles.

use std::ops::Range;
use std::time::Duration;

use maud::{Markup, Render, html};

use crate::number;
use crate::trends::Latency;

/// A number as a page shows it.
pub struct Figure {
    /// The exact number, for tests and scripts; `None` if it is unknown.
    pub raw: Option<String>,
    /// The text for people.
    pub shown: String,
}

impl Figure {
    fn of<T: Copy>(value: Option<T>, raw: fn(T) -> String, shown: fn(T) -> String) -> Self {
        Self { raw: value.map(raw), shown: known(value, shown) }
    }

    pub fn count(value: Option<u64>) -> Self {
        Self::of(value, |count| count.to_string(), number::count)
    }

    pub fn bytes(value: Option<u64>) -> Self {
        Self::of(value, |bytes| bytes.to_string(), number::bytes)
    }

    pub fn rate(value: Option<f64>) -> Self {
        Self::of(value, |rate| format!("{rate:.3}"), number::rate)
    }

    pub fn percent(value: Option<f64>) -> Self {
        Self::of(value, |part| format!("{part:.4}"), number::percent)
    }

    pub fn latency(value: Option<Duration>) -> Self {
        Self::of(value, |time| format!("{:.6}", time.as_secs_f64()), number::latency)
    }

    /// A text in place of a number.
    pub fn text(shown: impl Into<String>) -> Self {
        Self { raw: None, shown: shown.into() }
    }
}

/// How `shown` formats the value, or a dash if the value is unknown.
pub fn known<T>(value: Option<T>, shown: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| number::UNKNOWN.to_owned(), shown)
}

/// A large number with its name and a note. `stat` is for tests and scripts.
pub fn tile(stat: &str, name: &str, figure: &Figure, note: &(impl Render + ?Sized)) -> Markup {
    html! {
        div.tile data-stat=(stat) data-value=[figure.raw.as_deref()] {
            dt { (name) }
            dd title=[figure.raw.as_deref()] { (figure.shown) }
            dd.note { (note) }
        }
    }
}

/// The headings of a table. The columns in `numbers` contain numbers, which are aligned to the right.
pub fn headings(columns: &[&str], numbers: &Range<usize>) -> Markup {
    html! {
        thead {
            tr {
                @for (i, column) in columns.iter().enumerate() {
                    th scope="col" class=[numbers.contains(&i).then_some("number")] { (column) }
                }
            }
        }
    }
}

/// A cell of a table. On a narrow screen the cell shows the heading of its column itself.
pub fn cell(column: &str, figure: &Figure) -> Markup {
    cell_with(column, figure, &html! {})
}

/// A cell with something after the number.
pub fn cell_with(column: &str, figure: &Figure, more: &Markup) -> Markup {
    html! {
        td.number data-label=(column) data-value=[figure.raw.as_deref()] { (figure.shown) (more) }
    }
}

/// A bar that shows how full something is. It has a warning colour from 80 % on.
pub fn bar(used: u64, limit: u64) -> Markup {
    let level = match share(used, limit) {
        0.95.. => "full",
        0.8.. => "high",
        _ => "fine",
    };
    filled(share(used, limit), level)
}

/// A bar that shows a share of a whole. It never has a warning colour.
pub fn part(number: u64, of: u64) -> Markup {
    filled(share(number, of), "fine")
}

fn share(number: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { (number as f64 / of as f64).min(1.0) }
}

/// Draws a bar. It is hidden from screen readers, because the numbers next to it say the same.
fn filled(share: f64, level: &str) -> Markup {
    let width = format!("{:.1}", share * 100.0);
    html! {
        svg.fill data-level=(level) viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" {
            rect.whole width="100" height="4" {}
            rect.part width=(width) height="4" {}
        }
    }
}

/// The percentiles: the name, the share of the operations, and the latency.
fn percentiles(latency: Latency) -> [(&'static str, &'static str, Figure); 4] {
    let Latency { p50, p90, p99, p999, .. } = latency;
    [("p50", "Half", p50), ("p90", "90 %", p90), ("p99", "99 %", p99), ("p999", "99.9 %", p999)]
        .map(|(name, share, time)| (name, share, Figure::latency(time)))
}

/// Latencies as a table with one percentile per row.
pub fn latency_table(latency: Latency) -> Markup {
    let measured = number::of(latency.count, "operation", "operations");
    html! {
        table #latency {
            caption.hidden { "Latency percentiles" }
            (headings(&["Share of operations", "took at most"], &(1..2)))
            tbody {
                @for (name, share, time) in percentiles(latency) {
                    tr data-percentile=(name) {
                        th scope="row" { (share) span.muted { " (" (name) ")" } }
                        td.number data-value=[time.raw] { (time.shown) }
                    }
                }
            }
            tfoot { tr { th scope="row" { "Measured" } td.number { (measured) } } }
        }
    }
}

/// Latencies with all percentiles in one row.
pub fn latency_row(latency: Latency) -> Markup {
    html! {
        dl.line #latency {
            @for (name, _, time) in percentiles(latency) {
                div data-percentile=(name) data-value=[time.raw] {
                    dt { (if name == "p999" { "p99.9" } else { name }) }
                    dd { (time.shown) }
                }
            }
            div { dt { "Operations" } dd { (number::count(latency.count)) } }
        }
    }
}
