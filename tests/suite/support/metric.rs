//! A parser for the Prometheus text format, strict enough to notice a broken exporter.

use std::collections::{BTreeMap, BTreeSet};

/// One sample line.
#[derive(Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

#[derive(Debug)]
pub struct Metrics {
    samples: Vec<Sample>,
    types: BTreeMap<String, String>,
    helps: BTreeSet<String>,
}

impl Metrics {
    #[track_caller]
    pub fn parse(text: &str) -> Metrics {
        let mut metrics = Metrics { samples: Vec::new(), types: BTreeMap::new(), helps: BTreeSet::new() };
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("a HELP without a text: {line}"));
                assert!(!help.trim().is_empty(), "a HELP without a text: {line}");
                assert!(metrics.helps.insert(name.to_owned()), "two HELP lines for {name}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("a TYPE without a type: {line}"));
                let known = ["counter", "gauge", "histogram", "summary"];
                assert!(known.contains(&kind), "{line}");
                assert!(
                    metrics.types.insert(name.to_owned(), kind.to_owned()).is_none(),
                    "two TYPE lines for {name}"
                );
            } else if !line.starts_with('#') {
                metrics.samples.push(sample(line).unwrap_or_else(|| panic!("not a sample: {line}")));
            }
        }
        metrics
    }

    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The type of the sample's family, if the family has both a TYPE and a HELP line.
    pub fn described_type(&self, sample: &Sample) -> Option<&str> {
        let stem = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| sample.name.strip_suffix(suffix));
        let of_parts =
            stem.filter(|stem| matches!(self.types.get(*stem).map(String::as_str), Some("histogram" | "summary")));
        let family = of_parts.unwrap_or(&sample.name);
        self.types.get(family).filter(|_| self.helps.contains(family)).map(String::as_str)
    }

    /// The sum of a metric over all its labels, or 0 if the metric does not exist.
    pub fn total(&self, name: &str) -> f64 {
        self.total_with(name, &[])
    }

    /// The sum of a metric over the samples that have these labels.
    pub fn total_with(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matching = self.samples.iter().filter(|sample| {
            let has = |(label, value): &(&str, &str)| sample.labels.get(*label).is_some_and(|found| found == value);
            sample.name == name && labels.iter().all(has)
        });
        matching.map(|sample| sample.value).sum()
    }
}

/// `name{label="value",...} number`
fn sample(line: &str) -> Option<Sample> {
    let (series, number) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    let valid = |name: &str| {
        let mut letters = name.chars();
        letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
            && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':')
    };
    if !valid(name) {
        return None;
    }
    let mut parsed = BTreeMap::new();
    let mut rest = labels;
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"")?;
        let end = end_of_string(after)?;
        if !valid(label) || parsed.insert(label.to_owned(), after[..end].to_owned()).is_some() {
            return None;
        }
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some(Sample { name: name.to_owned(), labels: parsed, value: number.parse().ok()? })
}

/// The position of the quote that ends a label's value. A backslash escapes one character.
fn end_of_string(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(index, letter)| {
        let ends = letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        ends.then_some(index)
    })
}
