//! The report: the rows' results as Markdown, and the tables of targets computed from them.

use std::fmt::Write as _;

use crate::contest::{Series, Spread};
use crate::meter::Part;
use crate::targets::{Finding, PERFORMANCE, TARGETS, Target, target_of};

/// The results of a row.
#[derive(Default)]
pub struct Findings {
    pub tables: Vec<Table>,
    pub ratios: Vec<Ratio>,
    /// Further figures, one sentence each.
    pub notes: Vec<String>,
    pub findings: Vec<Finding>,
}

/// Contestants under the same load.
pub struct Table {
    pub load: String,
    pub series: Vec<Series>,
}

/// The ratio of two contestants, round by round.
pub struct Ratio {
    pub what: String,
    pub spread: Spread,
}

impl Findings {
    pub fn table(&mut self, load: impl Into<String>, series: Vec<Series>) {
        self.tables.push(Table { load: load.into(), series });
    }

    pub fn ratio(&mut self, what: impl Into<String>, spread: Spread) {
        self.ratios.push(Ratio { what: what.into(), spread });
    }

    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub fn find(&mut self, id: &'static str, figure: f64, note: impl Into<String>) {
        self.findings.push(Finding::new(id, figure, note));
    }
}

/// A row with its result or its error.
pub struct Row {
    pub title: &'static str,
    pub about: &'static str,
    pub result: Result<Findings, String>,
}

/// Formats a figure with three significant digits.
pub fn shown(figure: f64) -> String {
    match figure.abs() {
        size if size >= 1_000.0 => thousands(figure.round() as i64),
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        0.0 => "0".to_owned(),
        _ => format!("{figure:.2}"),
    }
}

/// Formats a count.
pub fn counted(count: f64) -> String {
    thousands(count.round() as i64)
}

fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = if number < 0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn spread(spread: Option<Spread>) -> String {
    spread.map_or("-".to_owned(), |spread| {
        let (median, least, most) = (shown(spread.median), shown(spread.least), shown(spread.most));
        if least == most { median } else { format!("{median} ({least}..{most})") }
    })
}

fn median(value: Option<Spread>) -> String {
    value.map_or("-".to_owned(), |spread| shown(spread.median))
}

/// The complete file.
pub fn markdown(head: &str, rows: &[Row]) -> String {
    let mut text = head.to_owned();
    text.push_str("\n## Targets\n\n");
    targets(&mut text, rows);
    text.push_str("\n## The rows\n");
    for row in rows {
        write_row(&mut text, row);
    }
    text
}

/// Both tables of targets, for the file and the terminal.
pub fn targets(text: &mut String, rows: &[Row]) {
    let findings: Vec<&Finding> =
        rows.iter().filter_map(|row| row.result.as_ref().ok()).flat_map(|found| &found.findings).collect();
    let of = |id: &str| findings.iter().find(|finding| finding.id == id).copied();
    line(text, "| row | target | figure | |");
    line(text, "|---|---|---|---|");
    for target in TARGETS.iter().filter(|target| !target.id.starts_with("P-")) {
        write_target(text, target.what, target, of(target.id));
    }
    line(text, "\n| | target | figure | |");
    line(text, "|---|---|---|---|");
    for (name, id) in PERFORMANCE {
        if let Some(target) = target_of(id) {
            write_target(text, name, target, of(id));
        }
    }
}

fn write_target(text: &mut String, what: &str, target: &Target, finding: Option<&Finding>) {
    let (figure, verdict) = match finding {
        None => ("-".to_owned(), "not measured"),
        Some(Finding { figure, note, .. }) => {
            let note = if note.is_empty() { String::new() } else { format!(", {note}") };
            (format!("{} {}{note}", shown(*figure), target.unit), target.verdict(*figure))
        }
    };
    line(text, &format!("| {what} | {} | {figure} | {verdict} |", target.text));
}

fn write_row(text: &mut String, row: &Row) {
    line(text, &format!("\n### {}\n\n{}", row.title, row.about));
    let found = match &row.result {
        Ok(found) => found,
        Err(error) => return line(text, &format!("\n**Not measured:**\n\n```\n{error}\n```")),
    };
    for table in &found.tables {
        line(text, &format!("\n{}\n", table.load));
        write_series(text, &table.series);
    }
    if !found.ratios.is_empty() {
        line(text, "\n| ratio, by rounds | median (least..most) |\n|---|---|");
        for ratio in &found.ratios {
            line(text, &format!("| {} | {} |", ratio.what, spread(Some(ratio.spread))));
        }
    }
    if !found.notes.is_empty() {
        line(text, "");
        for note in &found.notes {
            line(text, &format!("- {note}"));
        }
    }
}

fn write_series(text: &mut String, all: &[Series]) {
    let has = |part| all.iter().any(|series| series.spread(|sample| sample.cpu_micros(part)).is_some());
    let others = [(Part::Redis, "Redis"), (Part::PostgreSql, "PostgreSQL")];
    let others: Vec<(Part, &str)> = others.into_iter().filter(|(part, _)| has(*part)).collect();
    let mut head = "| | requests/s | p50 ms | p99 ms | p99.9 ms | CPU us per request |".to_owned();
    for (_, name) in &others {
        write!(head, " {name} CPU us per request |").expect("writing to a String cannot fail");
    }
    head.push_str(" RSS MB |");
    let columns = head.matches('|').count() - 1;
    line(text, &head);
    line(text, &format!("|{}", "---|".repeat(columns)));
    for series in all {
        let percentile = |which: fn(&crate::load::Latency) -> Option<f64>| {
            median(series.spread(|sample| which(&sample.traffic.latency)))
        };
        let mut cells = vec![
            series.name.clone(),
            spread(series.spread(|sample| Some(sample.per_second()))),
            percentile(|latency| latency.p50_ms),
            percentile(|latency| latency.p99_ms),
            percentile(|latency| latency.p999_ms),
            spread(series.spread(|sample| sample.cpu_micros(Part::Server))),
        ];
        cells.extend(others.iter().map(|(part, _)| spread(series.spread(|sample| sample.cpu_micros(*part)))));
        cells.push(median(series.spread(|sample| sample.resident(Part::Server).map(|bytes| bytes as f64 / 1e6))));
        line(text, &format!("| {} |", cells.join(" | ")));
    }
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
