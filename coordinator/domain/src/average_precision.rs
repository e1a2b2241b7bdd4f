//! Exact average precision per class and its mean, as scikit-learn's `average_precision_score`
//! computes it: `AP = Σₖ (Rₖ − Rₖ₋₁) Pₖ` over the distinct scores from high to low, with Pₖ and Rₖ
//! the precision and recall when every sample scored at least that much is taken as positive.
//! Equal scores are one threshold, so the order of samples never matters. There is no
//! interpolation, no envelope and no epsilon.
//!
//! Cost: scores become integers in the same order and go through a radix sort of three passes; the
//! positives of a class are sorted apart and merged, so no label is carried along. Memory is that
//! of sixteen columns.

use serde::{Deserialize, Serialize};

use crate::labels::Labels;
use crate::scores::{Layout, ScoreError, ScoreMatrix};

/// What "average precision" means here, to be printed beside every figure: the literature mixes
/// three definitions under this name.
pub const DEFINITION: &str =
    "average precision: non-interpolated, equal scores are one threshold (scikit-learn)";

/// How mAP treats classes that no sample shows, to be printed beside it.
pub const MEAN_DEFINITION: &str =
    "mAP: mean over the classes with at least one positive sample; the others are named";

/// What the chance figure means, to be printed beside it.
pub const CHANCE_DEFINITION: &str = "chance mAP: what one score for all samples gives, the mean \
    over classes with a positive of positives / samples";

/// One cache line of float32 scores: a pass over `[samples, classes]` touches each line once.
const CLASSES_PER_BLOCK: usize = 16;

/// One cache line of keys.
const TILE: usize = 16;

/// Exact mean average precision with everything needed to judge it. All figures are fractions of 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeanAveragePrecision {
    /// The mean over classes with a positive; `None` if there is no such class.
    pub map: Option<f64>,
    /// `[classes]`; `None` for a class without a positive.
    pub per_class: Vec<Option<f64>>,
    /// `[classes]`: how many samples show each class.
    pub support: Vec<u32>,
    /// The classes left out of the mean, ascending.
    pub classes_without_positive: Vec<u32>,
    /// How many samples were ranked, each once.
    pub samples: u32,
    /// What giving all samples one score reaches ([`CHANCE_DEFINITION`]); the expectation of a
    /// random ranking is slightly above it for rare classes.
    pub chance_map: Option<f64>,
}

/// Ranks every class of `scores` and averages.
///
/// Infinite scores rank first or last, as they should; -0.0 and 0.0 are equal.
///
/// # Errors
/// [`ScoreError::LabelsDiffer`] if the shapes differ; [`ScoreError::NotANumber`] naming the first
/// NaN.
pub fn mean_average_precision(
    scores: &ScoreMatrix<'_>,
    labels: &Labels,
) -> Result<MeanAveragePrecision, ScoreError> {
    scores.check(labels)?;
    let positives = labels.by_class();
    // At most `samples` each, which is a u32.
    let support: Vec<u32> = positives
        .iter()
        .map(|samples| samples.len() as u32)
        .collect();
    let samples = scores.samples();
    let mut per_class = Vec::with_capacity(support.len());
    let mut column = Column::default();
    let mut block = Block::default();
    for first in (0..support.len()).step_by(CLASSES_PER_BLOCK) {
        let classes = first..support.len().min(first + CLASSES_PER_BLOCK);
        block.load(scores, classes.clone());
        for (k, class) in classes.enumerate() {
            per_class.push(column.average_precision(block.class(k), &positives[class]));
        }
    }
    let classes_without_positive = (0u32..)
        .zip(&support)
        .filter(|(_, n)| **n == 0)
        .map(|(class, _)| class)
        .collect();
    let map = mean(per_class.iter().copied().flatten());
    let chance_map = chance_map(&support, samples);
    Ok(MeanAveragePrecision {
        map,
        per_class,
        support,
        classes_without_positive,
        samples,
        chance_map,
    })
}

/// The average precision of one class; `None` without a positive.
///
/// # Errors
/// [`ScoreError::WrongShape`] if there is not one label per score; [`ScoreError::NotANumber`].
pub fn average_precision(scores: &[f32], positive: &[bool]) -> Result<Option<f64>, ScoreError> {
    let samples = u32::try_from(positive.len()).unwrap_or(u32::MAX);
    let matrix = ScoreMatrix::new(scores, samples, 1, Layout::ClassMajor)?;
    let mut labels = Labels::new(samples, 1);
    for (sample, _) in (0..samples)
        .zip(positive)
        .filter(|(_, positive)| **positive)
    {
        // Only a sample at or above `samples` could be refused, and the range ends there.
        let _ = labels.insert(sample, 0);
    }
    Ok(mean_average_precision(&matrix, &labels)?.map)
}

/// The mAP of giving all samples one score: the mean of positives / samples over the classes with
/// a positive, `None` without such a class.
#[must_use]
pub fn chance_map(support: &[u32], samples: u32) -> Option<f64> {
    mean(
        support
            .iter()
            .filter(|n| **n > 0)
            .map(|n| f64::from(*n) / f64::from(samples)),
    )
}

pub(crate) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// A float32's place in a ranking from high to low, as an integer. Not for NaN.
pub(crate) fn rank_key(score: f32) -> u32 {
    // Adding 0.0 turns -0.0 into 0.0: they are equal as scores and must be as bits.
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 1 {
        bits
    } else {
        !bits & 0x7FFF_FFFF
    }
}

/// The score of a place; 0.0 for the key of -0.0 too.
pub(crate) fn score_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 {
        key
    } else {
        !key & 0x7FFF_FFFF
    })
}

/// Some neighbouring classes, turned from rows into columns of keys.
#[derive(Default)]
struct Block {
    samples: usize,
    /// `[classes of the block, samples]`.
    keys: Vec<u32>,
}

impl Block {
    fn load(&mut self, scores: &ScoreMatrix<'_>, classes: std::ops::Range<usize>) {
        let (samples, all) = (scores.samples() as usize, scores.classes() as usize);
        self.samples = samples;
        self.keys.resize(classes.len() * samples, 0);
        match scores.layout() {
            Layout::ClassMajor => {
                let columns = &scores.as_slice()[classes.start * samples..classes.end * samples];
                for (key, &score) in self.keys.iter_mut().zip(columns) {
                    *key = rank_key(score);
                }
            }
            Layout::SampleMajor => {
                // A tile of rows at a time, so that each column is written in whole cache lines.
                let mut tile = [[0u32; TILE]; CLASSES_PER_BLOCK];
                for (rows, start) in scores
                    .as_slice()
                    .chunks(all * TILE)
                    .zip((0..samples).step_by(TILE))
                {
                    for (at, row) in rows.chunks_exact(all).enumerate() {
                        for (column, &score) in tile.iter_mut().zip(&row[classes.clone()]) {
                            column[at] = rank_key(score);
                        }
                    }
                    let end = samples.min(start + TILE);
                    let columns = self.keys.chunks_exact_mut(samples);
                    for (column, tile) in columns.zip(&tile) {
                        column[start..end].copy_from_slice(&tile[..end - start]);
                    }
                }
            }
        }
    }

    /// The keys of the block's class `k`, `[samples]`.
    fn class(&mut self, k: usize) -> &mut [u32] {
        &mut self.keys[k * self.samples..(k + 1) * self.samples]
    }
}

/// Scratch memory of one column.
#[derive(Default)]
struct Column {
    spare: Vec<u32>,
    positives: Vec<u32>,
}

impl Column {
    /// The figure of one class from the `keys` of all samples, which are sorted in place, and which
    /// samples are positive.
    fn average_precision(&mut self, keys: &mut [u32], positive: &[u32]) -> Option<f64> {
        if positive.is_empty() {
            return None;
        }
        let mut positives = std::mem::take(&mut self.positives);
        positives.clear();
        positives.extend(positive.iter().map(|&sample| keys[sample as usize]));
        positives.sort_unstable();
        let sum = precision_sum(self.sorted(keys), &positives);
        self.positives = positives;
        Some(sum / positive.len() as f64)
    }

    /// The keys in ascending order: a radix sort from the low digit up, 11 + 11 + 10 bits.
    fn sorted<'a>(&'a mut self, keys: &'a mut [u32]) -> &'a [u32] {
        // Below this the counting costs more than the sorting.
        if keys.len() < 1024 {
            keys.sort_unstable();
            return keys;
        }
        self.spare.resize(keys.len(), 0);
        let mut counts = [[0u32; DIGIT]; 3];
        for &key in keys.iter() {
            let digits = [digit::<0>(key), digit::<1>(key), digit::<2>(key)];
            for (count, digit) in counts.iter_mut().zip(digits) {
                count[digit] = count[digit].wrapping_add(1);
            }
        }
        let [low, middle, high] = &mut counts;
        scatter::<0>(keys, &mut self.spare, low);
        scatter::<1>(&self.spare, keys, middle);
        scatter::<2>(keys, &mut self.spare, high);
        &self.spare
    }
}

/// One pass of the sort: puts `from` into `to` by digit `PASS`, equal digits in the order they had.
fn scatter<const PASS: usize>(from: &[u32], to: &mut [u32], counts: &mut [u32; DIGIT]) {
    let mut offset = 0u32;
    for slot in counts.iter_mut() {
        offset = offset.wrapping_add(std::mem::replace(slot, offset));
    }
    for &key in from {
        let slot = &mut counts[digit::<PASS>(key)];
        to[*slot as usize] = key;
        *slot = slot.wrapping_add(1);
    }
}

/// The sum of the precision at each positive, over the ascending keys of all samples and of the
/// positives among them. A threshold without a new positive adds no recall, so only the distinct
/// keys of positives are walked.
fn precision_sum(keys: &[u32], positives: &[u32]) -> f64 {
    // Positives are few: most keys are passed over a stride at a time.
    const STRIDE: usize = 16;
    let (mut taken, mut found, mut sum) = (0, 0, 0.0);
    for equal in positives.chunk_by(|a, b| a == b) {
        let threshold = equal[0];
        while keys
            .get(taken + STRIDE - 1)
            .is_some_and(|key| *key <= threshold)
        {
            taken += STRIDE;
        }
        while keys.get(taken).is_some_and(|key| *key <= threshold) {
            taken += 1;
        }
        found += equal.len();
        sum += equal.len() as f64 * (found as f64 / taken as f64);
    }
    sum
}

const DIGIT: usize = 1 << 11;

fn digit<const PASS: usize>(key: u32) -> usize {
    (key >> (11 * PASS)) as usize & (DIGIT - 1)
}

#[cfg(test)]
mod tests;
