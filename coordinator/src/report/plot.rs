//! Line plots as SVG inside a page. Drawn by `plotters`; colours are left to the page's style sheet, so that one drawing
//! serves light and dark: everything is drawn in marker colours, which are then replaced by class names.
//!
//! A plot is drawn at twice the width of a phone's screen and scales with its column. Legends are text beside the
//! drawing, never on top of it.

use std::ops::Range;

use maud::PreEscaped;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

/// Pixels of the drawing; its text is 27 of them high.
const SIZE: (u32, u32) = (960, 600);
const TEXT: f64 = 27.0 * 1.24; // plotters divides by 1.24
/// A range of positive values this wide is drawn logarithmically where a plot allows it.
const WIDE: f64 = 30.0;
/// Marks of a kind in one plot, at most: more would hide the curve.
const MARKS: usize = 60;
/// Curves up to this long show their points.
const DOTTED: usize = 60;

/// A curve.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    /// What it shows.
    pub(super) name: String,
    /// Parts with gaps between them, each in order of x.
    pub(super) parts: Vec<Vec<(f64, f64)>>,
    /// (x, least, greatest) around it; may be empty.
    pub(super) band: Vec<(f64, f64, f64)>,
}

/// What a mark stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    /// Something failed.
    Failure,
    /// A generation began.
    Generation,
    /// A coordinator went on with the run.
    Resume,
    /// A checkpoint was written.
    Checkpoint,
}

/// One direction of a plot.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    /// What it counts, with its unit.
    pub(super) name: String,
    /// From where to where; `None`: what the curves need.
    pub(super) range: Option<(f64, f64)>,
    /// Whether it may be logarithmic.
    pub(super) may_be_logarithmic: bool,
}

impl Axis {
    /// As wide as the curves are.
    pub(super) fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            range: None,
            may_be_logarithmic: false,
        }
    }

    /// From 0 to 100.
    pub(super) fn percent(name: &str) -> Self {
        Self {
            range: Some((0.0, 100.0)),
            ..Self::of(name)
        }
    }
}

/// A plot.
#[derive(Debug, Clone)]
pub(super) struct Plot {
    /// Says what is shown, for those who do not see it.
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// At most [`COLOURS`].
    pub(super) lines: Vec<Line>,
    /// Where along x.
    pub(super) marks: Vec<(Mark, f64)>,
    /// Whether short curves show their points.
    pub(super) dots: bool,
}

/// Curves that can be told apart, by colour and by dashes.
pub(super) const COLOURS: usize = 6;

/// What is drawn, in the marker colour that stands for it: (1, role, number).
#[derive(Clone, Copy)]
enum Ink {
    Text,
    Axis,
    Grid,
    Line(u8),
    Band(u8),
    Dot(u8),
    Mark(Mark),
}

impl Ink {
    fn colour(self) -> RGBColor {
        match self {
            Self::Text => RGBColor(1, 0, 0),
            Self::Axis => RGBColor(1, 0, 1),
            Self::Grid => RGBColor(1, 0, 2),
            Self::Line(number) => RGBColor(1, 1, number),
            Self::Band(number) => RGBColor(1, 2, number),
            Self::Dot(number) => RGBColor(1, 3, number),
            Self::Mark(mark) => RGBColor(1, 4, mark as u8),
        }
    }

    fn class(self) -> String {
        match self {
            Self::Text => "t".to_owned(),
            Self::Axis => "ax".to_owned(),
            Self::Grid => "gr".to_owned(),
            Self::Line(number) => format!("line c{number}"),
            Self::Band(number) => format!("band c{number}"),
            Self::Dot(number) => format!("dot c{number}"),
            Self::Mark(mark) => format!("mark {}", mark.class()),
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        let numbers = || 0..COLOURS as u8;
        [Self::Text, Self::Axis, Self::Grid]
            .into_iter()
            .chain(numbers().map(Self::Line))
            .chain(numbers().map(Self::Band))
            .chain(numbers().map(Self::Dot))
            .chain(Mark::ALL.map(Self::Mark))
    }
}

impl Mark {
    const ALL: [Self; 4] = [
        Self::Failure,
        Self::Generation,
        Self::Resume,
        Self::Checkpoint,
    ];

    /// Its class in the style sheet.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Failure => "m-failure",
            Self::Generation => "m-generation",
            Self::Resume => "m-resume",
            Self::Checkpoint => "m-checkpoint",
        }
    }

    /// From where to where it reaches, as parts of the plot's height: marks of different kinds at one place can be told
    /// apart.
    pub(super) fn height(self) -> (f64, f64) {
        match self {
            Self::Failure => (0.0, 1.0),
            Self::Resume => (0.0, 0.85),
            Self::Generation => (0.88, 1.0),
            Self::Checkpoint => (0.0, 0.05),
        }
    }

    /// For the legend.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Generation => "new generation",
            Self::Resume => "coordinator resumed",
            Self::Checkpoint => "checkpoint",
        }
    }
}

impl Plot {
    /// The kinds of marks in it, for the legend.
    pub(super) fn kinds_of_marks(&self) -> Vec<Mark> {
        let there = |kind: &Mark| self.marks.iter().any(|(mark, _)| mark == kind);
        Mark::ALL.into_iter().filter(there).collect()
    }

    /// The drawing; `None` where there is nothing to draw.
    pub(super) fn svg(&self) -> Option<PreEscaped<String>> {
        let points = || {
            let parts = self.lines.iter().flat_map(|line| &line.parts);
            parts.flatten().copied()
        };
        let band = || self.lines.iter().flat_map(|line| line.band.iter().copied());
        let (x0, x1) = self
            .x
            .range
            .or_else(|| extent(points().map(|point| point.0)))?;
        let x = if x0 < x1 { x0..x1 } else { x0..x0 + 1.0 };
        let values = points()
            .map(|point| point.1)
            .chain(band().flat_map(|(_, low, high)| [low, high]));
        let (low, high) = extent(values)?;
        let logarithmic = self.y.may_be_logarithmic && low > 0.0 && high > WIDE * low;
        let mut svg = String::new();
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let drawn = if logarithmic {
            let y = low / 1.5..high * 1.5;
            let ratio = y.end / y.start;
            let between = |part: f64| y.start * ratio.powf(part);
            let label = powers(&y);
            self.draw(&root, x, y.clone().log_scale(), &between, &label)
        } else {
            let y = self
                .y
                .range
                .map_or_else(|| roomy(low, high), |(from, to)| from..to);
            let label = decimals(&y);
            let between = |part: f64| y.start + part * (y.end - y.start);
            self.draw(&root, x, y.clone(), &between, &label)
        };
        drop(root);
        // Writing into a string does not fail; a plot that could not be drawn would be left out.
        drawn.ok()?;
        Some(PreEscaped(self.follow_style(&svg)))
    }

    fn draw<Y>(
        &self,
        root: &DrawingArea<SVGBackend<'_>, Shift>,
        x: Range<f64>,
        y: Y,
        height: &dyn Fn(f64) -> f64,
        y_label: &dyn Fn(&f64) -> String,
    ) -> Result<(), DrawingAreaErrorKind<std::io::Error>>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let x_label = decimals(&x);
        let mut chart = ChartBuilder::on(root)
            .margin_top(16)
            .margin_right(40)
            .margin_left(4)
            .margin_bottom(4)
            .x_label_area_size(88)
            .y_label_area_size(136)
            .build_cartesian_2d(x.clone(), y)?;
        let text = ("sans-serif", TEXT).into_font().color(&Ink::Text.colour());
        chart
            .configure_mesh()
            .max_light_lines(0)
            .bold_line_style(Ink::Grid.colour())
            .axis_style(Ink::Axis.colour())
            .x_labels(7)
            .y_labels(7)
            .x_label_formatter(&x_label)
            .y_label_formatter(y_label)
            .label_style(text.clone())
            .axis_desc_style(text)
            .x_desc(self.x.name.clone())
            .y_desc(self.y.name.clone())
            .draw()?;
        for (number, line) in (0u8..).zip(&self.lines) {
            if !line.band.is_empty() {
                let low = line.band.iter().map(|&(x, low, _)| (x, low));
                let high = line.band.iter().rev().map(|&(x, _, high)| (x, high));
                let around: Vec<_> = low.chain(high).collect();
                chart.draw_series([Polygon::new(around, Ink::Band(number).colour().filled())])?;
            }
        }
        for (kind, at) in self.visible_marks(&x) {
            let (from, to) = kind.height();
            let style = Ink::Mark(kind).colour().stroke_width(3);
            let ends = [(at, height(from)), (at, height(to))];
            chart.draw_series([PathElement::new(ends, style)])?;
        }
        for (number, line) in (0u8..).zip(&self.lines) {
            let style = Ink::Line(number).colour().stroke_width(4);
            for part in &line.parts {
                chart.draw_series(LineSeries::new(part.iter().copied(), style))?;
            }
            let all: usize = line.parts.iter().map(Vec::len).sum();
            let dots = line
                .parts
                .iter()
                .flatten()
                .filter(|_| self.dots && all <= DOTTED);
            let dot = Ink::Dot(number).colour().filled();
            chart.draw_series(dots.map(|&point| Circle::new(point, 6, dot)))?;
        }
        root.present()
    }

    /// Marks within the plot, those of a kind that would lie on each other as one.
    fn visible_marks(&self, x: &Range<f64>) -> Vec<(Mark, f64)> {
        let width = (x.end - x.start) / MARKS as f64;
        let mut visible: Vec<(Mark, f64)> = Vec::new();
        for kind in Mark::ALL {
            let mut last = f64::NEG_INFINITY;
            let of_kind = self
                .marks
                .iter()
                .filter(|(mark, at)| *mark == kind && (x.start..=x.end).contains(at));
            for &(kind, at) in of_kind {
                if at - last >= width {
                    visible.push((kind, at));
                    last = at;
                }
            }
        }
        // What is rarest and weighs most is drawn last.
        visible.reverse();
        visible
    }

    /// Puts class names in the place of marker colours, and lets the drawing fill its column.
    fn follow_style(&self, svg: &str) -> String {
        let title = maud::html! { (self.title) }.into_string();
        let (width, height) = SIZE;
        let mut text = svg.replacen(
            &format!("<svg width=\"{width}\" height=\"{height}\""),
            &format!("<svg class=\"plot\" role=\"img\" aria-label=\"{title}\""),
            1,
        );
        for ink in Ink::all() {
            let RGBColor(r, g, b) = ink.colour();
            let class = format!("class=\"{}\"", ink.class());
            for attribute in ["fill", "stroke"] {
                text = text.replace(&format!("{attribute}=\"#{r:02X}{g:02X}{b:02X}\""), &class);
            }
        }
        // Said once in the style sheet.
        text.replace("opacity=\"1\" ", "")
            .replace(" opacity=\"1\"", "")
            .replace("font-family=\"sans-serif\" ", "")
            .replace("fill=\"none\" ", "")
    }
}

/// The least and the greatest.
fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values
        .filter(|value| value.is_finite())
        .fold(None, |known, value| {
            let (low, high) = known.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        })
}

/// A little more than from `low` to `high`; from 0 where that is near.
fn roomy(low: f64, high: f64) -> Range<f64> {
    let room = match high - low {
        none if none <= 0.0 => high.abs().max(1e-9) * 0.1,
        some => some * 0.06,
    };
    let bottom = if low >= 0.0 && low < 0.4 * high {
        0.0
    } else {
        low - room
    };
    bottom..high + room
}

/// Numbers with as many decimals as a range of that width needs.
fn decimals(range: &Range<f64>) -> impl Fn(&f64) -> String + use<> {
    let width = (range.end - range.start).abs().max(f64::MIN_POSITIVE);
    let places = (1.0 - width.log10().floor()).clamp(0.0, 8.0) as usize;
    move |value| {
        let text = format!("{value:.places$}");
        let text = if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.')
        } else {
            &text
        };
        if text == "-0" { "0" } else { text }.to_owned()
    }
}

/// Numbers on a logarithmic axis, all of them written alike.
fn powers(range: &Range<f64>) -> impl Fn(&f64) -> String + use<> {
    let short = range.start >= 0.001 && range.end <= 10_000.0;
    move |value| {
        if short {
            let text = format!("{value:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            format!("{value:.0e}")
        }
    }
}
