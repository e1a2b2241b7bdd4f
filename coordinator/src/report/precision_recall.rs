//! Precision over recall: of all classes together, and of some.

use maud::{Markup, html};

use super::Material;
use super::curves::Figure;
use super::page::figures;
use super::plot::{Axis, Line, Plot};
use super::record::Record;
use super::scores::{PrCurve, chosen_classes, class_curve, micro_curve};
use crate::evaluation::kept::KeptScores;

pub(super) fn section(material: &Material) -> Markup {
    let record = &material.record;
    let scores = match &material.scores {
        Ok(scores) => scores,
        Err(problem) => return html! { p { (problem) "." } },
    };
    let micro = line("all classes", micro_curve(scores));
    let figure = |heading, lines, caption: String| Figure {
        heading,
        plot: Plot {
            title: format!("precision over recall, {heading}"),
            x: Axis::percent("recall, %"),
            y: Axis::percent("precision, %"),
            lines,
            marks: Vec::new(),
            dots: false,
        },
        caption,
    };
    let after = format!("After step {}", scores.about.step);
    let all = [
        figure(
            "All classes in one ranking",
            vec![micro],
            format!(
                "{after}: every image with every class is one candidate, ranked by score (micro average). The area is not \
                 the mAP, which ranks each class by itself."
            ),
        ),
        figure(
            "Single classes",
            classes(record, scores),
            format!(
                "{after}: the two classes with the highest average precision, the one in the middle, and the two with the \
                 lowest, among those that at least 5 images show."
            ),
        ),
    ];
    html! {
        (figures(&all, "No image is scored."))
        p class="soft" { "Of each curve the first point within every 0.5 % of recall is drawn." }
    }
}

fn classes(record: &Record, scores: &KeptScores) -> Vec<Line> {
    let known = record
        .evaluations
        .iter()
        .find(|known| known.step == scores.about.step);
    let Some(figures) = known.map(|known| &known.metrics.average_precision) else {
        return Vec::new();
    };
    let chosen = chosen_classes(&figures.per_class, &figures.support);
    let curve = |&class: &usize| {
        let ap = figures.per_class[class].unwrap_or(0.0);
        let name = format!("{} (AP {:.1} %)", record.class_name(class), 100.0 * ap);
        line(&name, class_curve(scores, class))
    };
    chosen.iter().map(curve).collect()
}

fn line(name: &str, curve: PrCurve) -> Line {
    let points = curve.into_iter();
    Line {
        name: name.to_owned(),
        parts: vec![
            points
                .map(|(recall, precision)| (100.0 * recall, 100.0 * precision))
                .collect(),
        ],
        band: Vec::new(),
    }
}
