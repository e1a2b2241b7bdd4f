//! The worst mistakes with the pictures themselves, as small copies inside the page: they are the user's own, and leave
//! the run directory only with the page.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data::coco::Split;
use maud::{Markup, html};

use super::Material;
use super::record::Record;
use super::scores::{Mistake, worst};
use crate::evaluation::kept::KeptScores;

/// Longer side of a copy, pixels.
const SIDE: u32 = 176;
/// Pictures larger than this are not opened, bytes.
const LARGEST: u64 = 64 << 20;

/// A mistake with its picture.
#[derive(Debug)]
pub(super) struct Shown {
    mistake: Mistake,
    file: String,
    /// Class indices.
    labels: Vec<usize>,
    /// A `data:` address, or why there is none.
    picture: Result<String, String>,
}

/// Both kinds: labels that are absent and were predicted, and labels that are there and were not.
#[derive(Debug, Default)]
pub(super) struct Worst {
    absent: Vec<Shown>,
    present: Vec<Shown>,
}

impl Worst {
    /// Chooses them and makes the copies.
    pub(super) fn of(scores: &KeptScores, split: &Split) -> Self {
        let (absent, present) = worst(scores);
        let show = |mistakes: Vec<Mistake>| {
            let shown = mistakes.into_iter();
            shown
                .map(|mistake| Shown::new(mistake, scores, split))
                .collect()
        };
        Self {
            absent: show(absent),
            present: show(present),
        }
    }
}

impl Shown {
    fn new(mistake: Mistake, scores: &KeptScores, split: &Split) -> Self {
        let known = |ids: &[u64]| ids.get(mistake.row).copied().unwrap_or(u64::MAX);
        let (place, image) = (known(&scores.sample_ids), known(&scores.image_ids));
        let sample = usize::try_from(place)
            .ok()
            .and_then(|place| split.samples.get(place));
        // The annotation file may be another one by now.
        let sample = sample.filter(|sample| sample.image_id == image);
        Self {
            file: sample.map_or_else(
                || format!("image {image}"),
                |sample| sample.file_name.clone(),
            ),
            labels: scores
                .labels
                .of(mistake.row as u32)
                .map(|class| class as usize)
                .collect(),
            picture: match sample {
                Some(sample) => copy(&split.image_dir.join(&sample.file_name)),
                None => Err("the annotation file has no such image any more".to_owned()),
            },
            mistake,
        }
    }
}

fn copy(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path)
        .map_err(|problem| problem.to_string())?
        .len();
    if size > LARGEST {
        return Err(format!("{size} bytes are too many"));
    }
    let bytes = std::fs::read(path).map_err(|problem| problem.to_string())?;
    let small = data::preview::preview(&bytes, SIDE).map_err(|problem| problem.to_string())?;
    Ok(format!(
        "data:image/jpeg;base64,{}",
        STANDARD.encode(&small.jpeg)
    ))
}

pub(super) fn section(material: &Material) -> Markup {
    let record = &material.record;
    let scores = match (&material.scores, &record.dataset) {
        (Ok(scores), Ok(_)) => scores,
        (Err(problem), _) | (_, Err(problem)) => {
            return html! { p { (problem) "." } };
        }
    };
    html! {
        p class="soft" {
            "After step " (scores.about.step) ". At most two of a class, and an image once in each list. Many such mistakes are "
            "missing or wrong labels: look before you blame the model."
        }
        h3 { "Predicted with the highest probability, and not labelled" }
        (pictures(record, &material.worst.absent, "No absent class reached a probability of 0.5."))
        h3 { "Labelled, and given the lowest probability" }
        (pictures(record, &material.worst.present, "Every label reached a probability of 0.5."))
    }
}

fn pictures(record: &Record, shown: &[Shown], none: &str) -> Markup {
    html! {
        @if shown.is_empty() { p { (none) } }
        div class="pictures" {
            @for one in shown {
                figure {
                    @match &one.picture {
                        Ok(address) => { img src=(address) alt={ "validation image " (one.file) } loading="lazy"; },
                        Err(problem) => { div class="none" { "no picture: " (problem) } },
                    }
                    figcaption {
                        b { (record.class_name(one.mistake.class)) " " (probability(one.mistake.probability)) }
                        br;
                        @if one.labels.is_empty() { "no labels" } @else { "labels: " (labels(record, &one.labels)) }
                        br;
                        (one.file)
                    }
                }
            }
        }
    }
}

fn probability(probability: f64) -> String {
    match 100.0 * probability {
        low if low < 0.1 => "p\u{a0}<\u{a0}0.1\u{a0}%".to_owned(),
        high if high > 99.9 => "p\u{a0}>\u{a0}99.9\u{a0}%".to_owned(),
        percent => format!("p\u{a0}=\u{a0}{percent:.1}\u{a0}%"),
    }
}

fn labels(record: &Record, labels: &[usize]) -> String {
    const NAMED: usize = 8;
    let mut names: Vec<_> = labels
        .iter()
        .take(NAMED)
        .map(|&class| record.class_name(class))
        .collect();
    if labels.len() > NAMED {
        names.push(format!("{} more", labels.len() - NAMED));
    }
    names.join(", ")
}
