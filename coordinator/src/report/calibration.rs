//! Whether the probabilities of the last evaluation mean what they say.

use maud::{Markup, html};

use domain::calibration::DEFINITION;

use super::curves::Figure;
use super::page::figures;
use super::plot::{Axis, Line, Plot};
use super::record::Record;

/// A share of fewer decisions is rough.
const FEW: u64 = 30;

pub(super) fn section(record: &Record) -> Markup {
    let (last, _) = record.last_and_best();
    let Some(calibration) = last.and_then(|last| last.metrics.calibration.as_ref()) else {
        return html! { p { "Nothing is evaluated yet, or by a version that did not look at it." } };
    };
    let line = |name: &str, points| Line {
        name: name.to_owned(),
        parts: vec![points],
        band: Vec::new(),
    };
    let filled = calibration.bins.iter().filter(|bin| bin.decisions > 0);
    let points = filled
        .clone()
        .map(|bin| (100.0 * bin.mean_probability, 100.0 * bin.fraction_positive));
    let decisions: Vec<u64> = filled.map(|bin| bin.decisions).collect();
    let rough = decisions.iter().filter(|&&number| number < FEW).count();
    let figure = |number: Option<f64>| number.map_or_else(|| "–".to_owned(), |n| format!("{n:.4}"));
    let diagram = Figure {
        heading: "Reliability",
        plot: Plot {
            title: "how often a label is there, over the probability that it was given".to_owned(),
            x: Axis::percent("probability given, %"),
            y: Axis::percent("label is there, %"),
            lines: vec![
                line("the model", points.collect()),
                line(
                    "probabilities that mean what they say",
                    vec![(0.0, 0.0), (100.0, 100.0)],
                ),
            ],
            marks: Vec::new(),
            dots: true,
        },
        caption: format!(
            "Expected calibration error {}, Brier score {}. Most decisions lie at the left end: few labels are there. \
             {rough} of {} dots stand for fewer than {FEW} decisions and say little.",
            figure(calibration.ece),
            figure(calibration.brier),
            decisions.len()
        ),
    };
    html! {
        (figures(&[diagram], ""))
        p class="soft" { "Definition: " (DEFINITION) "." }
    }
}
