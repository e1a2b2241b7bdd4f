//! Times the figures of one evaluation, for `bench/metrics.py`.
//!
//! `metrics SCORES LABELS SAMPLES CLASSES`: raw float32 logits and one byte per label, both
//! `[samples, classes]`. Prints one JSON object: seconds for mAP alone, for every figure that a run keeps of an evaluation, and
//! for one draw of the bootstrap over images.

#![allow(clippy::print_stdout, reason = "its answer")]

use std::time::Instant;

use anyhow::{Context, Result, bail};
use domain::average_precision::mean_average_precision;
use domain::comparison::bootstrap::{Ranked, draw};
use domain::figures::figures;
use domain::labels::Labels;
use domain::scores::{Layout, ScoreMatrix};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [scores, labels, samples, classes] = arguments.as_slice() else {
        bail!("usage: metrics SCORES LABELS SAMPLES CLASSES");
    };
    let (samples, classes): (u32, u32) = (samples.parse()?, classes.parse()?);
    let scores = read_scores(scores)?;
    let labels = read_labels(labels, samples, classes)?;
    let matrix = ScoreMatrix::new(&scores, samples, classes, Layout::SampleMajor)?;

    let began = Instant::now();
    let ranked = mean_average_precision(&matrix, &labels)?;
    let map_seconds = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let all = figures(&matrix, &labels, 3)?;
    let all_seconds = began.elapsed().as_secs_f64();
    let ranks = Ranked::new(&matrix, &labels)?;
    let began = Instant::now();
    let drawn = ranks.map(&draw(0, 0, samples));
    let draw_seconds = began.elapsed().as_secs_f64();

    let map = all
        .average_precision
        .map
        .context("no class has a positive")?;
    if ranked.map != Some(map) {
        bail!("mAP alone is {:?} and among all figures {map}", ranked.map);
    }
    // Of every figure something is printed, so that nothing of their work is optimised away.
    let others: Vec<f64> = [
        all.multilabel.at_threshold.of1,
        all.multilabel.top_k.of1,
        all.multilabel.top_k_at_threshold.of1,
        all.calibration.ece,
        all.calibration.brier,
        all.best_thresholds.overall.map(|best| best.f1),
        all.best_thresholds.mean_class_f1,
        all.other_definitions.eleven_point.map,
        all.other_definitions.every_point.map,
        all.other_definitions.epsilon.map,
        drawn,
    ]
    .into_iter()
    .flatten()
    .collect();
    println!(
        "{{\"map\": {map:?}, \"others\": {others:?}, \"map_seconds\": {map_seconds:?}, \
         \"all_seconds\": {all_seconds:?}, \"draw_seconds\": {draw_seconds:?}}}"
    );
    Ok(())
}

fn read_scores(path: &str) -> Result<Vec<f32>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
    let (values, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        bail!(
            "{path} is no list of float32: {} bytes are left over",
            rest.len()
        );
    }
    Ok(values
        .iter()
        .map(|value| f32::from_le_bytes(*value))
        .collect())
}

fn read_labels(path: &str, samples: u32, classes: u32) -> Result<Labels> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
    let lists: Vec<Vec<u32>> = bytes
        .chunks_exact(classes as usize)
        .map(|row| {
            (0u32..)
                .zip(row)
                .filter(|(_, shown)| **shown != 0)
                .map(|(class, _)| class)
                .collect()
        })
        .collect();
    if lists.len() != samples as usize {
        bail!(
            "{path} has labels of {} samples, not {samples}",
            lists.len()
        );
    }
    Ok(Labels::from_lists(classes, &lists)?)
}
