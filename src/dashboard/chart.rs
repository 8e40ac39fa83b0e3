//! A chart of the last minutes: lines and their labels.
//!
//! Lines are SVG that is stretched to its place, labels are text beside it: so both are sharp and readable at
//! any width, and colours come from the style sheet, for dark and light.

use std::fmt::Write as _;
use std::time::Duration;

use maud::{Markup, html};

use super::number;
use crate::model::UnixMillis;
use crate::trends::{Point, Trends};

/// The drawing's own units; the style sheet stretches them.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 160.0;

/// What is drawn.
pub struct Chart<'c> {
    pub id: &'c str,
    pub title: &'c str,
    /// How a value is written.
    pub shown: fn(f64) -> String,
    pub top: Top,
    pub lines: &'c [Line<'c>],
    /// Points that fit, and the time between two.
    pub points: usize,
    pub step: Duration,
}

/// Where the axis ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Top {
    /// Above the values, at a number that is easy to read.
    Decimal,
    /// The same for bytes, whose units go in steps of 1,024.
    Binary,
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

/// The shortest times that a chart shows, in parts of the longest one: a service that just started has little
/// to show, and need not show it in a corner.
const PARTS: [usize; 4] = [10, 5, 2, 1];

/// A line: the newest value last, gaps as `None`.
pub struct Line<'c> {
    pub name: &'c str,
    /// Its colour, by name of the style sheet.
    pub class: &'c str,
    pub values: Vec<Option<f64>>,
}

impl<'c> Line<'c> {
    /// What `of` says of each point. Steps that are missing since the last one are a gap up to now: a shard that
    /// does not answer leaves its namespaces without points.
    pub fn of(
        name: &'c str,
        class: &'c str,
        points: &[Point],
        now: UnixMillis,
        of: impl Fn(&Point) -> Option<f64>,
    ) -> Self {
        let step = u64::try_from(Trends::STEP.as_millis()).unwrap_or(u64::MAX);
        let late = points.last().map_or(0, |last| now.0.saturating_sub(last.at.0) / step);
        // A step that takes its time is none that is missing.
        let missing = usize::try_from(late.saturating_sub(1)).unwrap_or(usize::MAX).min(Trends::POINTS);
        let values = points.iter().map(of).chain(std::iter::repeat_n(None, missing)).collect();
        Self { name, class, values }
    }
}

impl Chart<'_> {
    pub fn draw(&self) -> Markup {
        let highest = self.lines.iter().flat_map(|line| line.values.iter().flatten()).copied().fold(0.0, f64::max);
        let top = self.top.above(highest);
        let measured = self.lines.iter().map(|line| line.values.len()).max().unwrap_or(0);
        let points = PARTS.into_iter().map(|part| self.points / part).find(|points| *points >= measured);
        let points = points.unwrap_or(self.points);
        let is_empty = self.lines.iter().all(|line| line.values.iter().flatten().next().is_none());
        let span = self.step * u32::try_from(points).unwrap_or(u32::MAX);
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
                            @let path = path(&line.values, points, top);
                            @if self.lines.len() == 1 { path.area.(line.class) d=(path.area) {} }
                            path.line.(line.class) d=(path.line) {}
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
        line.values.last().copied().flatten().map_or_else(|| number::UNKNOWN.to_owned(), self.shown)
    }

    /// The chart in words.
    fn described(&self, span: Duration) -> String {
        let mut text = format!("{} over the last {}", self.title, number::span(span));
        for line in self.lines {
            let highest = line.values.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
            if highest.is_finite() {
                // Writing to memory does not fail.
                let _ = write!(text, "; {}: now {}, at most {}", line.name, self.now(line), (self.shown)(highest));
            }
        }
        text
    }
}

/// The next number above that is easy to read and to halve: 1, 2, 4 or 6 and zeros behind.
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
    /// The same, closed at the bottom.
    area: String,
}

/// The newest point stands at the right, whatever is missing at the left.
fn path(values: &[Option<f64>], points: usize, top: f64) -> Path {
    let values = &values[values.len().saturating_sub(points)..];
    let step = WIDTH / points.saturating_sub(1).max(1) as f64;
    let first = points.saturating_sub(values.len());
    let (mut line, mut area) = (String::new(), String::new());
    let mut run: Vec<(i64, i64)> = Vec::new();
    for (i, value) in values.iter().map(Some).chain([None]).enumerate() {
        if let Some(Some(value)) = value {
            let x = (first + i) as f64 * step;
            let y = HEIGHT - (value / top).clamp(0.0, 1.0) * HEIGHT;
            run.push((x.round() as i64, y.round() as i64));
            continue;
        }
        if let (Some((left, y)), Some((right, _))) = (run.first().copied(), run.last().copied()) {
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
    Path { line, area }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_ends_at_a_number_that_is_easy_to_read() {
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
        let Path { line, area } = path(&[Some(0.0), None, Some(10.0), Some(5.0)], 4, 10.0);
        assert_eq!(line, "M0 160L0 160M400 0L400 0L600 80");
        assert_eq!(area, "M0 160L0 160L0 160ZM400 160L400 0L600 80L600 160Z");
        assert_eq!(path(&[Some(10.0)], 4, 10.0).line, "M600 0L600 0");
        assert_eq!(path(&[], 4, 10.0).line, "");
        assert_eq!(path(&[Some(1.0); 9], 4, 1.0).line.matches('L').count(), 4, "only what fits");
    }

    #[test]
    fn steps_that_are_missing_are_a_gap_up_to_now() {
        let point = |at| Point {
            at: UnixMillis(at),
            reads_per_second: Some(1.0),
            hit_rate: None,
            writes_per_second: 0.0,
            keys: 0,
            bytes: 0,
        };
        let values = |now| {
            let points = [point(10_000), point(12_000)];
            Line::of("reads", "reads", &points, UnixMillis(now), |point| point.reads_per_second).values
        };
        assert_eq!(values(12_000), [Some(1.0); 2]);
        assert_eq!(values(15_999), [Some(1.0); 2], "a step that is late");
        assert_eq!(values(18_000), [Some(1.0), Some(1.0), None, None]);
        assert_eq!(values(u64::MAX).len(), 2 + Trends::POINTS);
    }

    #[test]
    fn a_chart_says_in_words_what_it_shows() {
        let line = Line { name: "reads", class: "reads", values: vec![Some(4.0), Some(2.0)] };
        let chart = Chart {
            id: "c",
            title: "Reads",
            shown: number::rate,
            top: Top::Decimal,
            lines: &[line],
            points: 300,
            step: Duration::from_secs(2),
        };
        let shown = chart.draw().0;
        assert!(shown.contains("Reads over the last 1 min; reads: now 2 /s, at most 4 /s"), "{shown}");
        assert!(!shown.contains("style="), "the policy of the pages forbids it");
    }
}
