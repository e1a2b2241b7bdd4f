//! The threshold that maximises F1: one for all decisions, and one for each class.
//!
//! It is chosen on the split it is reported for, so its F1 is a selected figure: what another split gives with the same
//! threshold is lower on average, the more so for rare classes. Reported as such, never beside figures at 0.5 as if it
//! were of their kind.

use serde::{Deserialize, Serialize};

use crate::average_precision::mean;
use crate::columns::{Column, Thresholds, for_each_class, keys_of_positives, rank_key, score_of};
use crate::labels::Labels;
use crate::ranking::OperatingPoint;
use crate::scores::{ScoreError, ScoreMatrix};
use crate::sigmoid::probability;

/// What the figures mean, to be printed beside them.
pub const DEFINITION: &str = "the threshold of highest F1, of equals the highest; a label is predicted at a score of at \
     least that. Chosen on the split it is reported for: a selected figure";

/// A threshold and what it gives.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// As a score (logit); `None` where it is infinite.
    pub logit: Option<f32>,
    /// As a probability.
    pub probability: f64,
    /// F1 at it, a fraction of 1.
    pub f1: f64,
}

/// The best thresholds of one evaluation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BestThresholds {
    /// One threshold for all decisions: the highest OF1. `None` without any positive.
    pub overall: Option<Threshold>,
    /// `[classes]`: one for each; `None` for a class without a positive.
    pub per_class: Vec<Option<Threshold>>,
    /// The mean of the classes' F1 at their own thresholds, over classes with a positive.
    pub mean_class_f1: Option<f64>,
}

/// Finds them.
///
/// # Errors
/// [`ScoreError::LabelsDiffer`] if the shapes differ; [`ScoreError::NotANumber`].
pub fn best_thresholds(
    scores: &ScoreMatrix<'_>,
    labels: &Labels,
) -> Result<BestThresholds, ScoreError> {
    scores.check(labels)?;
    let mut best = BestThresholds {
        overall: overall(scores, labels),
        ..BestThresholds::default()
    };
    for_each_class(scores, &labels.by_class(), |column| best.push(column));
    best.average();
    Ok(best)
}

impl BestThresholds {
    /// Adds the class of `column`.
    pub(crate) fn push(&mut self, column: Column<'_>) {
        let found = best(column.points, column.positives.len() as u64);
        self.per_class.push(found);
    }

    /// Makes the mean, when all classes are there.
    pub(crate) fn average(&mut self) {
        self.mean_class_f1 = mean(self.per_class.iter().flatten().map(|best| best.f1));
    }
}

/// Scores that share their sign, exponent and seven bits more, as bfloat16 has them.
const BUCKETS: usize = 1 << 16;

/// The best threshold for all decisions. They are not sorted: they are counted in coarse buckets, and only those buckets are
/// looked into that could hold a higher F1 than the best at a bucket's end.
pub(crate) fn overall(scores: &ScoreMatrix<'_>, labels: &Labels) -> Option<Threshold> {
    let mut positives = keys_of_positives(scores, labels);
    let all = count(scores.as_slice().iter().map(|score| rank_key(*score)));
    let found = count(positives.iter().copied());
    let shown = positives.len() as u64;

    let mut end = (0, 0);
    let ends: Vec<(u64, u64)> = all
        .iter()
        .zip(found.iter())
        .map(|(all, found)| {
            end = (end.0 + u64::from(*all), end.1 + u64::from(*found));
            end
        })
        .collect();
    let f1 = |(taken, found): (u64, u64)| 2.0 * found as f64 / (taken + shown) as f64;
    let reached = ends.iter().map(|end| f1(*end)).fold(0.0, f64::max);
    // At best its positives come first.
    let could_hold = |bucket: usize| {
        let new = u64::from(found[bucket]);
        let (taken, before) = bucket.checked_sub(1).map_or((0, 0), |last| ends[last]);
        new > 0 && f1((taken + new, before + new)) >= reached
    };
    let mut candidates = (0..BUCKETS).filter(|bucket| could_hold(*bucket));
    let first = candidates.next()?;
    let last = candidates.next_back().unwrap_or(first);

    let is_candidate = |key: &u32| (first..=last).contains(&bucket_of(*key));

    // As scores, which a machine compares several at a time; beyond the infinite ones there are no scores. Zeros of both
    // signs are one score in two buckets, so the keys have the last word.
    let highest = score_of(((first as u32) << 16).max(rank_key(f32::INFINITY)));
    let lowest = score_of(((last as u32) << 16 | 0xFFFF).min(rank_key(f32::NEG_INFINITY)));
    let within = |score: f32| (lowest <= score) & (score <= highest);
    let mut keys = Vec::new();
    for scores in scores.as_slice().chunks(32) {
        // Most chunks have none.
        if scores.iter().fold(false, |any, score| any | within(*score)) {
            let found = scores.iter().map(|score| rank_key(*score));
            keys.extend(found.filter(is_candidate));
        }
    }
    keys.sort_unstable();
    positives.retain(is_candidate);
    positives.sort_unstable();
    let mut thresholds = Thresholds::default();
    let before = first.checked_sub(1).map_or((0, 0), |last| ends[last]);
    thresholds.walk(&keys, &positives, before);
    best(&thresholds.points, shown)
}

fn bucket_of(key: u32) -> usize {
    (key >> 16) as usize
}

/// How many keys are in each bucket.
fn count(keys: impl Iterator<Item = u32>) -> Box<[u32; BUCKETS]> {
    let mut counts = Box::new([0u32; BUCKETS]);
    for key in keys {
        let count = &mut counts[bucket_of(key)];
        // At most samples × classes scores, which a memory holds.
        *count = count.wrapping_add(1);
    }
    counts
}

/// The best of the thresholds of positives: any other takes more samples and finds no more.
fn best(points: &[OperatingPoint], positives: u64) -> Option<Threshold> {
    let mut best: Option<(f64, f32)> = None;
    for point in points {
        let f1 = point.f1(positives);
        if best.is_none_or(|(highest, _)| f1 > highest) {
            best = Some((f1, point.score));
        }
    }
    best.map(|(f1, logit)| Threshold {
        logit: logit.is_finite().then_some(logit),
        probability: probability(logit),
        f1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scores::Layout;

    #[test]
    fn the_best_threshold_is_a_score_of_a_positive_and_of_equals_the_highest() {
        // Class 0: positives at 2 and -1, a negative between. Class 1: shown by nobody.
        let labels = Labels::from_lists(2, &[vec![0], vec![], vec![0], vec![]]).unwrap();
        let scores = [2.0, 5.0, 0.0, -9.0, -1.0, -9.0, -2.0, -9.0];
        let matrix = ScoreMatrix::new(&scores, 4, 2, Layout::SampleMajor).unwrap();
        let found = best_thresholds(&matrix, &labels).unwrap();

        // At 2: F1 = 2·1/(1+2); at -1: 2·2/(3+2), the higher.
        let class = found.per_class[0].unwrap();
        assert_eq!((class.logit, class.f1), (Some(-1.0), 0.8));
        assert!((class.probability - 1.0 / (1.0 + 1f64.exp())).abs() < 1e-15);
        assert_eq!(found.per_class[1], None);
        assert_eq!(found.mean_class_f1, Some(0.8));
        // Over all decisions the false 5.0 counts too: 2·1/(2+2) at 2, 2·2/(4+2) at -1.
        let overall = found.overall.unwrap();
        assert_eq!((overall.logit, overall.f1), (Some(-1.0), 4.0 / 6.0));
    }

    #[test]
    fn without_a_positive_there_is_no_threshold() {
        let labels = Labels::new(2, 1);
        let matrix = ScoreMatrix::new(&[0.0, 1.0], 2, 1, Layout::SampleMajor).unwrap();
        let found = best_thresholds(&matrix, &labels).unwrap();
        assert_eq!((found.overall, found.mean_class_f1), (None, None));
        assert_eq!(found.per_class, [None]);
    }
}
