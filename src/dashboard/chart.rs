//! Charts of the last minutes: lines and their labels.
//!
//! The lines are SVG that is stretched to the available width. The labels are text next to it. So both are sharp and
//! readable at any width. The colours come from the style sheet, for dark and light.

use std::time::Duration;

use maud::{Markup, html};

use super::figure::known;
use crate::model::UnixMillis;
use crate::number;
use crate::trends::{Point, Trends};

/// The size of the drawing in its own units. The style sheet stretches it.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 160.0;

/// How a chart shows its values. The axis starts at 0.
pub struct Scale {
    /// Formats a value.
    shown: fn(f64) -> String,
    /// The upper end of the axis, for the highest value.
    top: fn(f64) -> f64,
}

pub const PER_SECOND: Scale = Scale { shown: number::rate, top: round_up };
pub const PERCENT: Scale = Scale { shown: number::percent, top: |_| 1.0 };
pub const COUNT: Scale = Scale { shown: number::short, top: round_up };
pub const BYTES: Scale = Scale { shown: |value| number::bytes(value as u64), top: round_up_bytes };

/// The time spans that a chart may show, as divisors of the longest time span. A chart shows the shortest time span
/// that contains its points: otherwise the few points of a service that has just started would all be in a corner.
const PARTS: [u32; 4] = [10, 5, 2, 1];

/// Measured points, and the interval at which they were measured.
pub struct Series {
    /// The oldest first.
    pub points: Vec<Point>,
    /// The longest time between two points in normal operation.
    pub interval: Duration,
    pub now: UnixMillis,
}

/// A line: values with their times, the newest last. A gap is `None`.
pub struct Line<'c> {
    pub name: &'c str,
    /// The class that sets its colour in the style sheet.
    pub class: &'c str,
    pub values: Vec<(UnixMillis, Option<f64>)>,
}

/// How many intervals without a point make a gap: between two points (`GAP`), and after the last point (`LATE`). A
/// single slow step is not a gap. Between two points, more intervals are allowed, because past intervals were longer
/// if there were more namespaces then.
const GAP: u64 = 4;
const LATE: u64 = 2;

impl Series {
    /// The line of the values that `of` takes from the points. If no point came recently, the line ends with a gap up
    /// to now: a namespace gets no points while one of its shards does not answer.
    pub fn line<'c>(&self, name: &'c str, class: &'c str, of: impl Fn(&Point) -> Option<f64>) -> Line<'c> {
        let oldest = self.now.0.saturating_sub(millis(LONGEST));
        let interval = millis(self.interval);
        let mut values: Vec<(UnixMillis, Option<f64>)> = Vec::with_capacity(self.points.len());
        for point in self.points.iter().filter(|point| point.at.0 >= oldest) {
            if let Some((last, _)) = values.last().copied()
                && point.at.0.saturating_sub(last.0) > interval * GAP
            {
                values.push((last, None));
            }
            values.push((point.at, of(point)));
        }
        if values.last().is_some_and(|(last, _)| self.now.0.saturating_sub(last.0) >= interval * LATE) {
            values.push((self.now, None));
        }
        Line { name, class, values }
    }
}

/// The time span for which points are kept.
const LONGEST: Duration = Duration::from_millis(Trends::STEP.as_millis() as u64 * Trends::POINTS as u64);

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Line<'_> {
    fn known(&self) -> impl Iterator<Item = f64> {
        self.values.iter().filter_map(|(_, value)| *value)
    }

    /// The newest value, or a dash if it is unknown.
    fn now(&self, scale: &Scale) -> String {
        known(self.values.last().and_then(|(_, value)| *value), scale.shown)
    }
}

/// Draws a chart with one or several lines.
pub fn chart(id: &str, title: &str, scale: &Scale, lines: &[Line<'_>]) -> Markup {
    let top = (scale.top)(lines.iter().flat_map(Line::known).fold(0.0, f64::max));
    let times = || lines.iter().flat_map(|line| line.values.iter().map(|(at, _)| at.0));
    let (start, end) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
    let span = PARTS.into_iter().map(|part| LONGEST / part).find(|span| millis(*span) >= end - start);
    let span = span.unwrap_or(LONGEST);
    let is_empty = lines.iter().all(|line| line.known().next().is_none());
    let title_id = format!("{id}-title");
    html! {
        figure.chart id=(id) aria-labelledby=(title_id) {
            figcaption {
                h3 id=(title_id) { (title) }
                ul.legend {
                    @for line in lines {
                        li class=(line.class) {
                            span.swatch aria-hidden="true" {}
                            span.muted { (line.name) }
                            strong { (line.now(scale)) }
                        }
                    }
                }
            }
            div.plot {
                div.axis aria-hidden="true" {
                    @for part in [1.0, 0.5, 0.0] { span { ((scale.shown)(top * part)) } }
                }
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                    aria-label=(described(title, span, scale, lines)) {
                    @for part in [0.0, 0.5, 1.0] {
                        line.grid x1="0" x2=(WIDTH) y1=(HEIGHT * part) y2=(HEIGHT * part) {}
                    }
                    @for line in lines {
                        @let path = path(&line.values, UnixMillis(end), span, top);
                        @if lines.len() == 1 { path.area.(line.class) d=(path.area) {} }
                        path.line.(line.class) d=(path.line) {}
                        path.dots.(line.class) d=(path.dots) {}
                    }
                }
                @if is_empty { p.empty { "Nothing measured yet" } }
                div.times aria-hidden="true" {
                    span { (number::span(span)) " ago" } span { (number::span(span / 2)) } span { "now" }
                }
            }
        }
    }
}

/// A chart in words, for screen readers.
fn described(title: &str, span: Duration, scale: &Scale, lines: &[Line<'_>]) -> String {
    let mut text = format!("{title} over the last {}", number::span(span));
    for line in lines {
        if let Some(highest) = line.known().reduce(f64::max) {
            text += &format!("; {}: now {}, at most {}", line.name, line.now(scale), (scale.shown)(highest));
        }
    }
    text
}

/// The next higher number of bytes, KiB, MiB and so on that is easy to read.
fn round_up_bytes(highest: f64) -> f64 {
    let steps = [1_099_511_627_776.0, 1_073_741_824.0, 1_048_576.0, 1024.0];
    let unit = steps.into_iter().find(|unit| highest > *unit).unwrap_or(1.0);
    unit * round_up(highest / unit)
}

/// The next higher number that is easy to read and to halve: 1, 2, 4 or 6, followed by zeros.
fn round_up(highest: f64) -> f64 {
    if !highest.is_finite() || highest <= 0.0 {
        return 1.0;
    }
    let unit = 10f64.powf(highest.log10().floor());
    let step = [1.0, 2.0, 4.0, 6.0, 10.0].into_iter().find(|step| unit * step >= highest * 0.999_999);
    unit * step.unwrap_or(10.0)
}

#[derive(Default)]
struct Path {
    line: String,
    /// The area between the line and the bottom.
    area: String,
    /// Points without neighbours, which a line would not show.
    dots: String,
}

/// The paths of a line. `end` is at the right edge, and each point is placed by its time.
fn path(values: &[(UnixMillis, Option<f64>)], end: UnixMillis, span: Duration, top: f64) -> Path {
    let span = millis(span).max(1);
    let age = |at: UnixMillis| end.0.saturating_sub(at.0);
    let fitting = values.iter().position(|(at, _)| age(*at) <= span).unwrap_or(values.len());
    let mut path = Path::default();
    for run in values[fitting..].split(|(_, value)| value.is_none()) {
        let x = |at: UnixMillis| (WIDTH - age(at) as f64 / span as f64 * WIDTH).round() as i64;
        let y = |value: f64| (HEIGHT - (value / top).clamp(0.0, 1.0) * HEIGHT).round() as i64;
        let points: Vec<_> = run.iter().filter_map(|(at, value)| Some((x(*at), y((*value)?)))).collect();
        let ([(left, y), ..], [.., (right, _)]) = (&points[..], &points[..]) else { continue };
        let through: String = points.iter().map(|(x, y)| format!("L{x} {y}")).collect();
        path.line += &format!("M{left} {y}{through}");
        path.area += &format!("M{left} {HEIGHT}{through}L{right} {HEIGHT}Z");
        if points.len() == 1 {
            path.dots += &format!("M{left} {y}h0");
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_ends_at_a_round_number() {
        for (highest, top) in
            [(0.0, 1.0), (0.3, 0.4), (1.0, 1.0), (1.1, 2.0), (4.5, 6.0), (61.0, 100.0), (12_345.0, 20_000.0)]
        {
            assert!((round_up(highest) - top).abs() < 1e-9, "{highest}: {}", round_up(highest));
        }
        for (highest, top) in [(0.0, 1.0), (700.0, 1000.0), (1100.0, 2048.0), (5_500_000.0, 6_291_456.0)] {
            assert!((round_up_bytes(highest) - top).abs() < 1e-9, "{highest}: {}", round_up_bytes(highest));
        }
        for strange in [f64::NAN, f64::INFINITY, -1.0] {
            assert!((round_up(strange) - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn the_newest_point_is_at_the_right_and_gaps_are_gaps() {
        let timed = |values: &[Option<f64>]| {
            (0..).zip(values).map(|(i, value)| (UnixMillis(i * 2000), *value)).collect::<Vec<_>>()
        };
        let drawn =
            |values: &[Option<f64>], end, top| path(&timed(values), UnixMillis(end), Duration::from_secs(6), top);
        let Path { line, area, dots } = drawn(&[Some(0.0), None, Some(10.0), Some(5.0)], 6000, 10.0);
        assert_eq!(line, "M0 160L0 160M400 0L400 0L600 80");
        assert_eq!(area, "M0 160L0 160L0 160ZM400 160L400 0L600 80L600 160Z");
        assert_eq!(dots, "M0 160h0", "a line of one point cannot be seen");
        assert_eq!(drawn(&[Some(10.0)], 0, 10.0).line, "M600 0L600 0");
        assert_eq!(drawn(&[], 0, 10.0).line, "");
        assert_eq!(drawn(&[Some(1.0); 9], 16_000, 1.0).line.matches('L').count(), 4, "only what fits");
    }

    fn values(times: &[u64], interval: u64, now: u64) -> Vec<(u64, Option<f64>)> {
        let point = |at: &u64| Point {
            at: UnixMillis(*at),
            reads_per_second: Some(1.0),
            hit_rate: None,
            writes_per_second: None,
            keys: None,
            bytes: None,
        };
        let points = times.iter().map(point).collect();
        let series = Series { points, interval: Duration::from_millis(interval), now: UnixMillis(now) };
        let line = series.line("reads", "reads", |point| point.reads_per_second);
        line.values.into_iter().map(|(at, value)| (at.0, value)).collect()
    }

    #[test]
    fn missing_steps_are_a_gap_up_to_now() {
        let both = [(10_000, Some(1.0)), (12_000, Some(1.0))];
        assert_eq!(values(&[10_000, 12_000], 2000, 12_000), both);
        assert_eq!(values(&[10_000, 12_000], 2000, 15_999), both, "a step that is late");
        assert_eq!(values(&[10_000, 12_000], 2000, 18_000), [both[0], both[1], (18_000, None)]);
        assert_eq!(values(&[10_000, 32_000], 2000, 32_000)[1], (10_000, None), "a break in between");
        assert_eq!(values(&[10_000, 12_000], 2000, 900_000), [], "all too long ago");
    }

    #[test]
    fn a_namespace_that_is_not_read_at_every_step_has_no_gaps() {
        let times = [10_000, 14_000, 20_000, 26_000, 30_000];
        let values = values(&times, 6000, 35_000);
        assert_eq!(values, times.map(|at| (at, Some(1.0))), "the next one is not late yet");
        let values: Vec<_> = values.into_iter().map(|(at, value)| (UnixMillis(at), value)).collect();
        let Path { line, .. } = path(&values, UnixMillis(30_000), Duration::from_secs(60), 1.0);
        assert_eq!(line, "M400 0L400 0L440 0L500 0L560 0L600 0");
    }

    #[test]
    fn a_chart_has_a_description_in_words() {
        let values = vec![(UnixMillis(1000), Some(4.0)), (UnixMillis(3000), Some(2.0))];
        let line = Line { name: "reads", class: "reads", values };
        let shown = chart("c", "Reads", &PER_SECOND, &[line]).0;
        assert!(shown.contains("Reads over the last 1 min; reads: now 2 /s, at most 4 /s"), "{shown}");
        assert!(!shown.contains("style="), "the policy of the pages forbids it");
    }
}
