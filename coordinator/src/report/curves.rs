//! The curves of training and validation over epochs, and of speed over time.

use std::collections::BTreeSet;

use domain::scoring::Figure as Beside;
use proto::v1::StepPoint;

use super::events::{Happening, Kind};
use super::plot::{Axis, Line, Mark, Plot};
use super::record::Record;
use super::thin::{self, Bin};
use crate::evaluation::Evaluated;

/// Drawn points of a curve over time; each is to hold some steps.
const TIME_POINTS: usize = 200;
const STEPS_PER_TIME_POINT: usize = 10;
/// A pause so many times as long as the usual one between two steps breaks a curve over time.
const PAUSE: f64 = 5.0;

/// A plot with the sentence below it.
#[derive(Debug)]
pub(super) struct Figure {
    pub(super) heading: &'static str,
    pub(super) plot: Plot,
    pub(super) caption: String,
}

/// Loss, learning rates and gradient norm by committed step, and the validation figures by evaluation.
pub(super) fn by_epoch(record: &Record) -> Vec<Figure> {
    let mut figures = Vec::new();
    let marks = marks_by_epoch(record);
    let figure = |heading, y: Axis, lines: Vec<Line>, caption: String| Figure {
        heading,
        plot: Plot {
            title: format!("{heading} over epochs"),
            x: epochs_axis(record),
            y,
            lines,
            marks: marks.clone(),
            dots: false,
        },
        caption,
    };
    let curve = |name: &str, of: fn(&StepPoint) -> f64, banded: bool| {
        let points = record.steps.iter().map(|point| {
            // A step's figures are of its middle.
            (
                record.epochs(point.step) + 0.5 / f64::from(record.steps_per_epoch.max(1)),
                of(point),
            )
        });
        line(name, &thin::bins(points, thin::POINTS), banded)
    };
    let thinned = thinning(record.steps.len());
    figures.push(figure(
        "Training loss",
        Axis::of("loss"),
        vec![curve("training loss", |point| point.loss, true)],
        format!("Mean loss over the samples of a step, with the weights before it. {thinned}"),
    ));
    figures.push(validation(record, &marks));
    figures.extend(training(record, &marks));
    let mut rate = Axis::of("learning rate");
    rate.may_be_logarithmic = true;
    let mut rates = vec![curve("head", |point| point.learning_rate_head, false)];
    if known(record, |point| point.learning_rate_trunk) {
        rates.push(curve("trunk", |point| point.learning_rate_trunk, false));
    }
    figures.push(figure(
        "Learning rates",
        rate,
        rates,
        "Absolute rates of both parameter groups, as used in each step.".to_owned(),
    ));
    if known(record, |point| point.gradient_norm) {
        let mut norm = Axis::of("L2 norm");
        norm.may_be_logarithmic = true;
        let clip = record
            .config
            .as_ref()
            .map_or(0.0, |config| config.train.clip_norm);
        let clipping = if clip > 0.0 {
            format!(" The run clips at {clip}.")
        } else {
            " The run does not clip.".to_owned()
        };
        figures.push(figure(
            "Gradient norm",
            norm,
            vec![curve("gradient norm", |point| point.gradient_norm, true)],
            format!("Of all parameters together, before clipping.{clipping} {thinned}"),
        ));
    }
    figures
}

/// From the run's beginning to where it stands.
fn epochs_axis(record: &Record) -> Axis {
    Axis {
        range: Some((0.0, record.epochs(record.steps_done()))),
        ..Axis::of("epochs trained")
    }
}

/// What was left out of the drawing, in words.
fn thinning(points: usize) -> String {
    let size = points.div_ceil(thin::POINTS).max(1);
    if size == 1 {
        return "Every committed step is drawn.".to_owned();
    }
    format!(
        "Each point is the mean of {size} consecutive committed steps; the band goes from the least to the greatest of \
         them."
    )
}

fn known(record: &Record, of: fn(&StepPoint) -> f64) -> bool {
    record.steps.iter().any(|point| of(point) > 0.0)
}

fn line(name: &str, bins: &[Bin], banded: bool) -> Line {
    let spread = banded && bins.iter().any(|bin| bin.low < bin.high);
    Line {
        name: name.to_owned(),
        parts: vec![bins.iter().map(|bin| (bin.x, bin.mean)).collect()],
        band: if spread {
            bins.iter().map(|bin| (bin.x, bin.low, bin.high)).collect()
        } else {
            Vec::new()
        },
    }
}

fn validation(record: &Record, marks: &[(Mark, f64)]) -> Figure {
    let curve = |name: &str, of: fn(&Evaluated) -> Option<f64>| {
        let points = record
            .evaluations
            .iter()
            .filter_map(|known| Some((record.epochs(known.step), 100.0 * of(known)?)));
        line(name, &thin::bins(points, thin::POINTS), false)
    };
    let mut lines = vec![
        curve("mAP", |known| known.metrics.average_precision.map),
        curve("CF1", |known| known.metrics.at_threshold.cf1),
        curve("OF1", |known| known.metrics.at_threshold.of1),
    ];
    let averaged = further(record, Beside::ValAverage, "mAP by averaged weights");
    lines.extend(averaged);
    Figure {
        heading: "Validation",
        plot: Plot {
            title: "mAP, CF1 and OF1 of the validation split over epochs".to_owned(),
            x: epochs_axis(record),
            y: Axis::of("mAP and F1, %"),
            lines,
            marks: marks.to_vec(),
            dots: true,
        },
        caption: "Of the whole validation split, each image once. CF1 and OF1 are the per-class and overall F1 of labels \
                  predicted at p ≥ 0.5."
            .to_owned(),
    }
}

/// mAP of training pictures beside validation's; nothing where none was taken.
fn training(record: &Record, marks: &[(Mark, f64)]) -> Option<Figure> {
    let beside = [
        (Beside::Online, "training, online"),
        (Beside::TrainClean, "training, clean"),
        (Beside::TrainBatch, "training, batch statistics"),
        (Beside::TrainCrops, "training, augmented"),
        (
            Beside::TrainCropsBatch,
            "training, augmented, batch statistics",
        ),
    ];
    let beside = beside.map(|(figure, name)| further(record, figure, name));
    let beside: Vec<Line> = beside.into_iter().flatten().collect();
    if beside.is_empty() {
        return None;
    }
    let validation = record.evaluations.iter().filter_map(|known| {
        let map = known.metrics.average_precision.map?;
        Some((record.epochs(known.step), 100.0 * map))
    });
    let validation = line("validation", &thin::bins(validation, thin::POINTS), false);
    Some(Figure {
        heading: "Training pictures beside validation",
        plot: Plot {
            title: "mAP of training and validation pictures over epochs".to_owned(),
            x: epochs_axis(record),
            y: Axis::of("mAP, %"),
            lines: std::iter::once(validation).chain(beside).collect(),
            marks: marks.to_vec(),
            dots: true,
        },
        caption: "The same exact mAP over training pictures. Online: scores collected while the epoch trained, under its \
                  augmentation and by weights that moved, which is why it may lie far below validation; the others: of \
                  pictures drawn once, by the weights after the epoch."
            .to_owned(),
    })
}

/// The curve of a figure that some evaluation has.
fn further(record: &Record, figure: Beside, name: &str) -> Option<Line> {
    let points = record.evaluations.iter().filter_map(|known| {
        let further = &known.metrics.further;
        let found = further.iter().find(|one| one.figure == figure)?;
        Some((record.epochs(known.step), 100.0 * found.map?))
    });
    let bins = thin::bins(points, thin::POINTS);
    (!bins.is_empty()).then(|| line(name, &bins, false))
}

fn kind_of_mark(kind: Kind, first: bool) -> Option<Mark> {
    match kind {
        Kind::Failure => Some(Mark::Failure),
        Kind::Generation if !first => Some(Mark::Generation),
        Kind::Start if !first => Some(Mark::Resume),
        Kind::Checkpoint => Some(Mark::Checkpoint),
        _ => None,
    }
}

fn marks_by_epoch(record: &Record) -> Vec<(Mark, f64)> {
    marks(record, |happening| record.epochs(happening.step))
}

/// Failures, generations but the first, resumes and checkpoints, at `place`.
fn marks(record: &Record, place: impl Fn(&Happening) -> f64) -> Vec<(Mark, f64)> {
    let mut seen = BTreeSet::new();
    let mark = |happening: &Happening| {
        let first = seen.insert(happening.kind);
        Some((kind_of_mark(happening.kind, first)?, place(happening)))
    };
    record.history.happenings.iter().filter_map(mark).collect()
}

/// Speed and waiting over time since the run began; nothing where no times were recorded.
pub(super) fn by_time(record: &Record) -> Vec<Figure> {
    let timed: Vec<_> = record
        .steps
        .iter()
        .filter(|point| point.unix_millis > 0)
        .collect();
    let (Some(first), Some(last)) = (timed.first(), timed.last()) else {
        return Vec::new();
    };
    let began = record
        .history
        .began_unix_millis
        .map_or(first.unix_millis, |began| began.min(first.unix_millis));
    // A clock that was set back would put points before the beginning.
    let seconds = |millis: u64| millis.saturating_sub(began) as f64 / 1000.0;
    let (unit, name) = match seconds(last.unix_millis) {
        short if short < 600.0 => (1.0, "seconds since the run began"),
        long if long < 4.0 * 3600.0 => (60.0, "minutes since the run began"),
        _ => (3600.0, "hours since the run began"),
    };
    let x = |millis: u64| seconds(millis) / unit;
    let parts = parts(&timed);
    let curve = |name: &str, of: fn(&StepPoint) -> f64| {
        let thinned = parts.iter().map(|part| {
            let limit = (TIME_POINTS * part.len()).div_ceil(timed.len());
            let points = part.iter().map(|point| (x(point.unix_millis), of(point)));
            let bins = thin::bins(points, limit.max(2));
            bins.iter().map(|bin| (bin.x, bin.mean)).collect()
        });
        Line {
            name: name.to_owned(),
            parts: thinned.collect(),
            band: Vec::new(),
        }
    };
    let marks = marks(record, |happening| x(happening.unix_millis));
    let plot = |title: &str, y, lines| Plot {
        title: title.to_owned(),
        x: Axis {
            range: Some((0.0, x(last.unix_millis))),
            ..Axis::of(name)
        },
        y,
        lines,
        marks: marks.clone(),
        dots: false,
    };
    let mut wait = Axis::of("% of step time");
    let most = timed
        .iter()
        .map(|point| point.data_wait_fraction)
        .fold(0.0, f64::max);
    wait.range = Some((
        0.0,
        if most > 0.5 {
            100.0
        } else {
            (110.0 * most).max(5.0)
        },
    ));
    vec![
        Figure {
            heading: "Images per second",
            plot: plot(
                "images per second over time",
                Axis::of("images per second"),
                vec![
                    curve("within steps", |point| point.images_per_second),
                    all_in_all(&timed, (began, last.unix_millis), x),
                ],
            ),
            caption: "Within steps: of all ranks, over the step time of the last 20 steps; broken where no step was \
                      committed for a while. All in all: images of committed steps in equal spans of the clock, \
                      so evaluation, checkpoints, failures and work that became void pull it down."
                .to_owned(),
        },
        Figure {
            heading: "Waiting for data",
            plot: plot(
                "share of step time spent waiting for data",
                wait,
                vec![curve("waiting for data", |point| 100.0 * point.data_wait_fraction)],
            ),
            caption: "The share of step time in which ranks waited for decoded pictures, over the last 20 steps of all \
                      ranks."
                .to_owned(),
        },
    ]
}

/// Stretches of steps without a long pause between them.
fn parts<'a>(timed: &[&'a StepPoint]) -> Vec<Vec<&'a StepPoint>> {
    let pause = |pair: &[&StepPoint]| pair[1].unix_millis.saturating_sub(pair[0].unix_millis);
    let mut pauses: Vec<_> = timed.windows(2).map(pause).collect();
    pauses.sort_unstable();
    let usual = pauses.get(pauses.len() / 2).copied().unwrap_or(0) as f64;
    let longest = (PAUSE * usual).max(2000.0);
    timed
        .chunk_by(|a, b| b.unix_millis.saturating_sub(a.unix_millis) as f64 <= longest)
        .map(<[_]>::to_vec)
        .collect()
}

/// Images of committed steps in equal spans of time, divided by the span.
fn all_in_all(timed: &[&StepPoint], (began, ended): (u64, u64), x: impl Fn(u64) -> f64) -> Line {
    let spans = (timed.len() / STEPS_PER_TIME_POINT).clamp(1, TIME_POINTS);
    let width = (ended.saturating_sub(began) as f64 / spans as f64).max(1.0);
    let mut images = vec![0u64; spans];
    for point in timed {
        let span = (point.unix_millis.saturating_sub(began) as f64 / width) as usize;
        images[span.min(spans - 1)] += u64::from(point.samples);
    }
    // A figure of a span is level over it: a slope would say more than is known.
    let edge = |span: usize| x(began + (span as f64 * width) as u64);
    let points = (0..).zip(&images).flat_map(|(span, &images)| {
        let rate = images as f64 * 1000.0 / width;
        [(edge(span), rate), (edge(span + 1), rate)]
    });
    Line {
        name: "all in all".to_owned(),
        parts: vec![points.collect()],
        band: Vec::new(),
    }
}
