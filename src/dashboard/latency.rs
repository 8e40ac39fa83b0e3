//! The latencies of operations, as percentiles: in a table or in one row.

use maud::{Markup, html};

use crate::number;
use crate::trends::Latency;

/// A table with one percentile per row.
pub fn table(latency: Latency) -> Markup {
    let Latency { count, p50, p90, p99, p999 } = latency;
    let percentiles = [("p50", "Half", p50), ("p90", "90 %", p90), ("p99", "99 %", p99), ("p999", "99.9 %", p999)];
    html! {
        table.plain #latency {
            caption.hidden { "Latency percentiles" }
            thead { tr { th scope="col" { "Share of operations" } th.number scope="col" { "took at most" } } }
            tbody {
                @for (name, text, time) in percentiles {
                    tr data-percentile=(name) {
                        th scope="row" { (text) span.muted { " (" (name) ")" } }
                        td.number data-value=[time.map(|time| format!("{:.6}", time.as_secs_f64()))] {
                            (time.map_or_else(|| number::UNKNOWN.to_owned(), number::latency))
                        }
                    }
                }
            }
            tfoot { tr { th scope="row" { "Measured" } td.number { (number::of(count, "operation", "operations")) } } }
        }
    }
}

/// All percentiles in one row.
pub fn row(latency: Latency) -> Markup {
    let Latency { count, p50, p90, p99, p999 } = latency;
    let percentiles = [("p50", p50), ("p90", p90), ("p99", p99), ("p999", p999)];
    html! {
        dl.line #latency {
            @for (name, time) in percentiles {
                div data-percentile=(name) data-value=[time.map(|time| format!("{:.6}", time.as_secs_f64()))] {
                    dt { (if name == "p999" { "p99.9" } else { name }) }
                    dd { (time.map_or_else(|| number::UNKNOWN.to_owned(), number::latency)) }
                }
            }
            div { dt { "Operations" } dd { (number::count(count)) } }
        }
    }
}
