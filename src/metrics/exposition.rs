//! Writes what the exporter cannot keep: figures that are counted elsewhere and only read when the metrics are shown.
//! The exporter's own functions write each line, so that all metrics look the same.

use std::fmt::Display;

use metrics::{Key, Label};
use metrics_exporter_prometheus::LabelSet;
use metrics_exporter_prometheus::formatting::{write_help_line, write_metric_line, write_type_line};

/// A label: name and value.
pub type LabelRef<'l> = (&'static str, &'l str);

/// Metrics in the Prometheus text format.
#[derive(Default)]
pub struct Exposition(String);

impl Exposition {
    /// Begins a metric. `kind` is `counter`, `gauge` or `histogram`.
    pub fn metric(&mut self, name: &str, kind: &str, help: &str) {
        write_help_line(&mut self.0, name, None, None, help);
        write_type_line(&mut self.0, name, None, None, kind);
    }

    /// Adds a line. `suffix` is the part of a histogram.
    pub fn sample(
        &mut self,
        name: &'static str,
        suffix: Option<&'static str>,
        labels: &[LabelRef<'_>],
        value: impl Display,
    ) {
        let labels: Vec<Label> = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
        let labels = LabelSet::from_key_and_global(&Key::from_parts(name, labels), &Default::default());
        write_metric_line::<&str, _>(&mut self.0, name, suffix, &labels, None, value, None);
    }

    pub fn end_metric(&mut self) {
        self.0.push('\n');
    }

    pub fn into_text(self) -> String {
        self.0
    }
}
