//! Exact average precision per class and its mean, as scikit-learn's `average_precision_score`
//! computes it: `AP = Σₖ (Rₖ − Rₖ₋₁) Pₖ` over the distinct scores from high to low, with Pₖ and Rₖ
//! the precision and recall when every sample scored at least that much is taken as positive.
//! Equal scores are one threshold, so the order of samples never matters. There is no
//! interpolation, no envelope and no epsilon.
//!
//! Cost: scores become integers in the same order and go through a radix sort of three passes; the
//! positives of a class are sorted apart and merged, so no label is carried along. Memory is that
//! of [`CLASSES_PER_BLOCK`] columns.

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
    let support = labels.support();
    let samples = scores.samples();
    let mut per_class = Vec::with_capacity(support.len());
    let mut column = Column::default();
    let mut block = Block::default();
    for first in (0..support.len()).step_by(CLASSES_PER_BLOCK) {
        let end = support.len().min(first + CLASSES_PER_BLOCK);
        block.load(scores, labels, first..end);
        for (keys, positives) in block.classes() {
            per_class.push(column.average_precision(keys, positives));
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

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// A float32's place in a ranking from high to low, as an integer. Not for NaN.
fn rank_key(score: f32) -> u32 {
    // Adding 0.0 turns -0.0 into 0.0: they are equal as scores and must be as bits.
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 1 {
        bits
    } else {
        !bits & 0x7FFF_FFFF
    }
}

/// Some neighbouring classes, turned from rows into columns of keys.
#[derive(Default)]
struct Block {
    samples: usize,
    /// `[classes of the block, samples]`.
    keys: Vec<u32>,
    /// The keys of the positives of each class of the block.
    positives: Vec<Vec<u32>>,
}

impl Block {
    fn load(&mut self, scores: &ScoreMatrix<'_>, labels: &Labels, classes: std::ops::Range<usize>) {
        let (samples, all) = (scores.samples() as usize, scores.classes() as usize);
        self.samples = samples;
        self.keys.resize(classes.len() * samples, 0);
        self.positives.resize_with(classes.len(), Vec::new);
        self.positives.iter_mut().for_each(Vec::clear);
        match scores.layout() {
            Layout::ClassMajor => {
                let column = &scores.as_slice()[classes.start * samples..classes.end * samples];
                for (key, &score) in self.keys.iter_mut().zip(column) {
                    *key = rank_key(score);
                }
            }
            Layout::SampleMajor => {
                for (sample, row) in scores.as_slice().chunks_exact(all.max(1)).enumerate() {
                    for (k, &score) in row[classes.clone()].iter().enumerate() {
                        self.keys[k * samples + sample] = rank_key(score);
                    }
                }
            }
        }
        for sample in 0..scores.samples() {
            for class in labels.of(sample).map(|class| class as usize) {
                if classes.contains(&class) {
                    let k = class - classes.start;
                    self.positives[k].push(self.keys[k * samples + sample as usize]);
                }
            }
        }
    }

    /// Each class's keys and the keys of its positives. Without samples: no keys, one entry each.
    fn classes(&mut self) -> impl Iterator<Item = (&mut [u32], &mut Vec<u32>)> {
        let mut rest = self.keys.as_mut_slice();
        let samples = self.samples;
        self.positives.iter_mut().map(move |positives| {
            let (keys, after) = std::mem::take(&mut rest).split_at_mut(samples);
            rest = after;
            (keys, positives)
        })
    }
}

/// Scratch memory of one column's sort.
#[derive(Default)]
struct Column {
    spare: Vec<u32>,
}

impl Column {
    /// `keys` of all samples and `positives` among them, in any order; both are sorted in place.
    fn average_precision(&mut self, keys: &mut [u32], positives: &mut [u32]) -> Option<f64> {
        if positives.is_empty() {
            return None;
        }
        let total = positives.len() as f64;
        positives.sort_unstable();
        let keys = self.sorted(keys);
        // Walk down the distinct scores of positives: a threshold without a new positive adds no
        // recall, hence nothing to the sum.
        let (mut taken, mut found, mut sum) = (0, 0, 0.0);
        while found < positives.len() {
            let threshold = positives[found];
            let before = found;
            while found < positives.len() && positives[found] == threshold {
                found += 1;
            }
            while taken < keys.len() && keys[taken] <= threshold {
                taken += 1;
            }
            sum += (found - before) as f64 * (found as f64 / taken as f64);
        }
        Some(sum / total)
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
            for (pass, count) in counts.iter_mut().enumerate() {
                let slot = &mut count[digit(key, pass)];
                *slot = slot.wrapping_add(1);
            }
        }
        let (mut from, mut to) = (keys, &mut self.spare[..]);
        for (pass, count) in counts.iter_mut().enumerate() {
            let mut offset = 0u32;
            for slot in count.iter_mut() {
                offset = offset.wrapping_add(std::mem::replace(slot, offset));
            }
            for &key in from.iter() {
                let slot = &mut count[digit(key, pass)];
                to[*slot as usize] = key;
                *slot = slot.wrapping_add(1);
            }
            std::mem::swap(&mut from, &mut to);
        }
        from
    }
}

const DIGIT: usize = 1 << 11;

fn digit(key: u32, pass: usize) -> usize {
    (key >> (11 * pass)) as usize & (DIGIT - 1)
}

#[cfg(test)]
mod tests;
