//! Charts of the last minutes: lines and their labels.
//!
//! The lines are SVG that is stretched to the available width. The labels are text next to it. So both are sharp and
//! readable at any width. The colours come from the style sheet, for dark and light.

use std::fmt::Write as _;
use std::time::Duration;

use maud::{Markup, html};

use crate::model::UnixMillis;
use crate::number;
use crate::trends::{Point, Trends};

/// The size of the drawing in its own units. The style sheet stretches it.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 160.0;

/// A chart to draw.
pub struct Chart<'c> {
    pub id: &'c str,
    pub title: &'c str,
    /// Formats a value.
    pub shown: fn(f64) -> String,
    pub top: Top,
    pub lines: &'c [Line<'c>],
    /// The longest time span that the chart shows.
    pub span: Duration,
}

/// The upper end of the axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Top {
    /// A round number above the values.
    Decimal,
    /// A round number of bytes, KiB, MiB and so on above the values.
    Binary,
    /// This value.
    At(f64),
}

impl Top {
    fn above(self, highest: f64) -> f64 {
        match self {
            Self::Decimal => round_up(highest),
            Self::Binary => {
                let steps = [1_099_511_627_776.0, 1_073_741_824.0, 1_048_576.0, 1024.0];
                let unit = steps.into_iter().find(|unit| highest > *unit).unwrap_or(1.0);
                unit * round_up(highest / unit)
            }
            Self::At(top) => top,
        }
    }
}

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
pub const LONGEST: Duration = Duration::from_millis(Trends::STEP.as_millis() as u64 * Trends::POINTS as u64);

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Line<'_> {
    fn known(&self) -> impl Iterator<Item = f64> {
        self.values.iter().filter_map(|(_, value)| *value)
    }
}

/// A chart of rates per second. Its axis starts at 0.
pub fn throughput<'c>(id: &'c str, title: &'c str, lines: &'c [Line<'c>]) -> Chart<'c> {
    Chart { id, title, shown: number::rate, top: Top::Decimal, lines, span: LONGEST }
}

/// A chart of a share. Its axis goes from 0 to 100 %.
pub fn rate<'c>(id: &'c str, title: &'c str, lines: &'c [Line<'c>]) -> Chart<'c> {
    Chart { shown: number::percent, top: Top::At(1.0), ..throughput(id, title, lines) }
}

impl Chart<'_> {
    pub fn draw(&self) -> Markup {
        let highest = self.lines.iter().flat_map(Line::known).fold(0.0, f64::max);
        let top = self.top.above(highest);
        let times = || self.lines.iter().flat_map(|line| line.values.iter().map(|(at, _)| at.0));
        let (start, end) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
        let span = PARTS.into_iter().map(|part| self.span / part).find(|span| millis(*span) >= end - start);
        let span = span.unwrap_or(self.span);
        let is_empty = self.lines.iter().all(|line| line.known().next().is_none());
        let title_id = format!("{}-title", self.id);
        html! {
            figure.chart id=(self.id) aria-labelledby=(title_id) {
                figcaption {
                    h3 id=(title_id) { (self.title) }
                    ul.legend {
                        @for line in self.lines {
                            li class=(line.class) {
                                span.swatch aria-hidden="true" {}
                                span.muted { (line.name) }
                                strong { (self.now(line)) }
                            }
                        }
                    }
                }
                div.plot {
                    div.axis aria-hidden="true" {
                        span { ((self.shown)(top)) } span { ((self.shown)(top / 2.0)) } span { ((self.shown)(0.0)) }
                    }
                    svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                        aria-label=(self.described(span)) {
                        @for part in [0.0, 0.5, 1.0] {
                            line.grid x1="0" x2=(WIDTH) y1=(HEIGHT * part) y2=(HEIGHT * part) {}
                        }
                        @for line in self.lines {
                            @let path = path(&line.values, UnixMillis(end), span, top);
                            @if self.lines.len() == 1 { path.area.(line.class) d=(path.area) {} }
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

    fn now(&self, line: &Line<'_>) -> String {
        line.values.last().and_then(|(_, value)| *value).map_or_else(|| number::UNKNOWN.to_owned(), self.shown)
    }

    /// The chart in words, for screen readers.
    fn described(&self, span: Duration) -> String {
        let mut text = format!("{} over the last {}", self.title, number::span(span));
        for line in self.lines {
            let highest = line.known().fold(f64::NEG_INFINITY, f64::max);
            if highest.is_finite() {
                // Writing to a string cannot fail.
                let _ = write!(text, "; {}: now {}, at most {}", line.name, self.now(line), (self.shown)(highest));
            }
        }
        text
    }
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
    let (mut line, mut area, mut dots) = (String::new(), String::new(), String::new());
    let mut run: Vec<(i64, i64)> = Vec::new();
    let values = values.iter().filter(|(at, _)| end.0.saturating_sub(at.0) <= span);
    for point in values.map(Some).chain([None]) {
        if let Some((at, Some(value))) = point {
            let x = WIDTH - end.0.saturating_sub(at.0) as f64 / span as f64 * WIDTH;
            let y = HEIGHT - (value / top).clamp(0.0, 1.0) * HEIGHT;
            run.push((x.round() as i64, y.round() as i64));
            continue;
        }
        if let (Some((left, y)), Some((right, _))) = (run.first().copied(), run.last().copied()) {
            if run.len() == 1 {
                let _ = write!(dots, "M{left} {y}h0");
            }
            let _ = write!(line, "M{left} {y}");
            let _ = write!(area, "M{left} {HEIGHT}");
            for (x, y) in &run {
                let _ = write!(line, "L{x} {y}");
                let _ = write!(area, "L{x} {y}");
            }
            let _ = write!(area, "L{right} {HEIGHT}Z");
        }
        run.clear();
    }
    Path { line, area, dots }
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
            assert!((Top::Binary.above(highest) - top).abs() < 1e-9, "{highest}: {}", Top::Binary.above(highest));
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
        let chart =
            Chart { id: "c", title: "Reads", shown: number::rate, top: Top::Decimal, lines: &[line], span: LONGEST };
        let shown = chart.draw().0;
        assert!(shown.contains("Reads over the last 1 min; reads: now 2 /s, at most 4 /s"), "{shown}");
        assert!(!shown.contains("style="), "the policy of the pages forbids it");
    }
}
