//! `coordinator evaluate`: the figures of a run, computed from predictions in a file by the same code.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use data::coco::{Options, Split, SplitFile, SplitPaths, read_split};
use domain::average_precision as ap;
use domain::group_means::group_means;
use domain::score_table::{Inserted, ScoreTable};
use serde::Deserialize;
use serde_json::{Value, json};

use super::failure::DATA;
use super::{EvaluateArgs, Failure, OK};
use crate::evaluation::json::{definitions, figures_json};
use crate::evaluation::{Metrics, figures, labels_of};
use crate::terminal::{answer, figures as words, row};

/// A line of predictions; anything else in it is for people.
#[derive(Deserialize)]
struct Prediction {
    /// Relative to the folder of images, sub-folders included.
    file: String,
    /// In class order.
    logits: Option<Vec<f32>>,
    /// Why there are none.
    error: Option<String>,
}

pub(super) fn evaluate(args: &EvaluateArgs) -> Result<u8, Failure> {
    let paths = SplitPaths {
        annotations: args.annotations.clone(),
        // Only names are compared: no image is opened.
        images: args
            .annotations
            .parent()
            .unwrap_or(Path::new(""))
            .to_owned(),
    };
    let annotated = read_split("val", &paths, &Options::default())?;
    let table = read_predictions(&args.predictions, &annotated)?;
    let wrong =
        |text: String| Failure::new(DATA, format!("{}: {text}", args.predictions.display()));
    if let Some(sample) = table.unscored().first() {
        return Err(wrong(format!(
            "{} of {} images of {} have no line, {} is the first: predict on the whole folder",
            table.unscored().len(),
            annotated.split.samples.len(),
            args.annotations.display(),
            annotated.split.samples[*sample as usize].file_name
        )));
    }
    let labels = labels_of(&annotated.split).map_err(|error| wrong(error.to_string()))?;
    let metrics = table
        .finish(&labels)
        .and_then(|scored| figures(&scored, table.skipped()))
        .map_err(|error| wrong(error.to_string()))?;
    if args.json {
        answer(&format!("{:#}", to_json(&metrics, &annotated)));
    } else {
        answer(&to_text(&metrics, &annotated));
    }
    Ok(OK)
}

fn read_predictions(path: &Path, annotated: &SplitFile) -> Result<ScoreTable, Failure> {
    let split = &annotated.split;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let ids: HashMap<&str, u32> = (0u32..)
        .zip(&split.samples)
        .map(|(id, sample)| (plain(&sample.file_name), id))
        .collect();
    let mut table = ScoreTable::new(count(split.samples.len()), count(annotated.classes.len()));
    let unreadable =
        |error: std::io::Error| Failure::new(DATA, format!("{}: {error}", path.display()));
    let lines = BufReader::new(File::open(path).map_err(unreadable)?).lines();
    for (number, line) in (1..).zip(lines) {
        let wrong =
            |text: String| Failure::new(DATA, format!("{}, line {number}: {text}", path.display()));
        let line = line.map_err(|error| wrong(error.to_string()))?;
        if line.trim().is_empty() {
            continue;
        }
        let prediction: Prediction = serde_json::from_str(&line).map_err(|error| {
            wrong(format!(
                "is not what `worker predict --json` writes: {error}"
            ))
        })?;
        let sample = *ids
            .get(plain(&prediction.file))
            .ok_or_else(|| wrong(unknown_file(&prediction.file, split)))?;
        let taken = match (&prediction.logits, &prediction.error) {
            (Some(logits), _) if logits.len() != annotated.classes.len() => {
                return Err(wrong(format!(
                    "{} has {} logits but {} has {} classes: predict with a model of these classes",
                    prediction.file,
                    logits.len(),
                    split.annotation_file.display(),
                    annotated.classes.len()
                )));
            }
            (Some(logits), _) => table.insert(sample, logits),
            (None, Some(_)) => table.skip(sample),
            (None, None) => {
                return Err(wrong(format!(
                    "{} has neither logits nor error",
                    prediction.file
                )));
            }
        };
        match taken {
            Ok(Inserted::New) => {}
            Ok(Inserted::Repeated) => {
                return Err(wrong(format!(
                    "{} has a line already: an image counts once",
                    prediction.file
                )));
            }
            Err(error) => return Err(wrong(format!("{}: {error}", prediction.file))),
        }
    }
    Ok(table)
}

/// `./a/b.jpg` and `a/b.jpg` are one file.
fn plain(name: &str) -> &str {
    name.trim_start_matches("./")
}

fn unknown_file(file: &str, split: &Split) -> String {
    let base = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let same_name = split
        .samples
        .iter()
        .find(|sample| base(&sample.file_name) == base(file));
    let hint = match same_name {
        Some(sample) => format!(
            "it lists {}: predict on the folder that its names are relative to",
            sample.file_name
        ),
        None => "predict on the images it lists".into(),
    };
    format!(
        "{file} is not in {}: {hint}",
        split.annotation_file.display()
    )
}

fn to_json(metrics: &Metrics, annotated: &SplitFile) -> Value {
    let file = |sample: &u32| annotated.split.samples[*sample as usize].file_name.clone();
    let (classes, groups) = names(annotated);
    let mut value = figures_json(metrics, &classes, &groups);
    value["skipped"] = json!(metrics.skipped.iter().map(file).collect::<Vec<_>>());
    for (name, text) in definitions() {
        value[name] = json!(text);
    }
    value
}

/// Class names, and (name, class indices) of each supercategory.
fn names(annotated: &SplitFile) -> (Vec<String>, Vec<(String, Vec<usize>)>) {
    let classes = annotated.classes.iter();
    let groups = annotated.groups.iter();
    (
        classes.map(|class| class.name.clone()).collect(),
        groups
            .map(|group| (group.name.clone(), group.classes.clone()))
            .collect(),
    )
}

fn to_text(metrics: &Metrics, annotated: &SplitFile) -> String {
    let figures = &metrics.average_precision;
    let mut lines = vec![
        row(
            "mAP",
            &format!(
                "{} on {}",
                words::percent(figures.map),
                words::count(u64::from(figures.samples), "image", "images")
            ),
        ),
        row("chance", &words::percent(figures.chance_map)),
        row("", ap::DEFINITION),
    ];
    for (label, six) in [
        ("p ≥ 0.5", Some(&metrics.at_threshold)),
        ("top 3", Some(&metrics.top3)),
        ("both", metrics.top3_at_threshold.as_ref()),
    ] {
        let Some(six) = six else { continue };
        let all = [
            ("CP", six.cp),
            ("CR", six.cr),
            ("CF1", six.cf1),
            ("OP", six.op),
            ("OR", six.or),
            ("OF1", six.of1),
            ("mean class F1", six.mean_class_f1),
        ];
        let all: Vec<_> = all
            .iter()
            .map(|(name, figure)| format!("{name} {}", words::percent(*figure)))
            .collect();
        lines.push(row(label, &all.join(" · ")));
    }
    lines.extend(further(metrics));
    if !metrics.skipped.is_empty() {
        let skipped = words::count(metrics.skipped.len() as u64, "image", "images");
        lines.push(row(
            "left out",
            &format!("{skipped} that could not be read"),
        ));
    }
    lines.push(String::new());
    let (classes, groups) = names(annotated);
    let of_groups: Vec<_> = groups.iter().map(|(_, classes)| classes.clone()).collect();
    for ((name, members), mean) in groups.iter().zip(group_means(figures, &of_groups)) {
        let shown = |map: Option<f64>| {
            map.map_or_else(|| "no image".into(), |map| words::percent(Some(map)))
        };
        let support = words::grouped(mean.support);
        lines.push(format!("  {name:<20} {:>9}  {support:>8}", shown(mean.map)));
        for &class in members {
            let (Some(name), Some(ap)) = (classes.get(class), figures.per_class.get(class)) else {
                continue;
            };
            let support = words::grouped(figures.support.get(class).copied().unwrap_or(0).into());
            lines.push(format!("    {name:<18} {:>9}  {support:>8}", shown(*ap)));
        }
    }
    lines.join("\n")
}

/// Calibration, the best threshold, and what other definitions give.
fn further(metrics: &Metrics) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(calibration) = &metrics.calibration {
        let brier = calibration
            .brier
            .map_or_else(|| "undefined".into(), |brier| format!("{brier:.4}"));
        let ece = words::percent(calibration.ece);
        lines.push(row(
            "calibration",
            &format!("expected error {ece} · Brier score {brier}"),
        ));
    }
    if let Some(best) = metrics.best_thresholds.as_ref()
        && let Some(overall) = best.overall
    {
        let text = format!(
            "OF1 {} at p ≥ {:.3}, chosen on these images: a selected figure",
            words::percent(Some(overall.f1)),
            overall.probability
        );
        lines.push(row("best F1", &text));
    }
    if let Some(others) = &metrics.other_definitions {
        let text = format!(
            "eleven-point {} · every-point {} · epsilon {} (for comparison with papers)",
            words::percent(others.eleven_point.map),
            words::percent(others.every_point.map),
            words::percent(others.epsilon.map)
        );
        lines.push(row("mAP else", &text));
    }
    lines
}
