//! Times the figures of one evaluation, for `bench/metrics.py`.
//!
//! `metrics SCORES LABELS SAMPLES CLASSES`: raw float32 logits and one byte per label, both
//! `[samples, classes]`. Prints one JSON object: seconds for mAP alone, with CP to OF1 at p >= 0.5 and for the top 3, for every
//! figure that a run keeps of an evaluation, and for one draw of the bootstrap over images.

#![allow(clippy::print_stdout, reason = "its answer")]

use std::time::Instant;

use anyhow::{Context, Result, bail};
use domain::average_precision::mean_average_precision;
use domain::calibration::calibration;
use domain::comparison::bootstrap::{Ranked, draw};
use domain::labels::Labels;
use domain::multilabel::{at_threshold, top_k, top_k_at_threshold};
use domain::other_definitions::other_definitions;
use domain::scores::{Layout, ScoreMatrix};
use domain::thresholds::best_thresholds;

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
    let threshold = at_threshold(&matrix, &labels)?;
    let top = top_k(&matrix, &labels, 3)?;
    let all_seconds = began.elapsed().as_secs_f64();
    let figures = [
        top_k_at_threshold(&matrix, &labels, 3)?.of1,
        calibration(&matrix, &labels)?.ece,
        best_thresholds(&matrix, &labels)?.mean_class_f1,
        other_definitions(&matrix, &labels)?.epsilon.map,
    ];
    let every_seconds = began.elapsed().as_secs_f64();
    let ranks = Ranked::new(&matrix, &labels)?;
    let began = Instant::now();
    let drawn = ranks.map(&draw(0, 0, samples));
    let draw_seconds = began.elapsed().as_secs_f64();

    let map = ranked.map.context("no class has a positive")?;
    // Both are read, so that nothing of their work is optimised away.
    let of1 = threshold
        .of1
        .context("no label")?
        .max(top.of1.context("no label")?);
    let others: Vec<f64> = figures.into_iter().chain([drawn]).flatten().collect();
    println!(
        "{{\"map\": {map:?}, \"of1\": {of1:?}, \"others\": {others:?}, \"map_seconds\": {map_seconds:?}, \
         \"all_seconds\": {all_seconds:?}, \"every_seconds\": {every_seconds:?}, \"draw_seconds\": {draw_seconds:?}}}"
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
