//! One class's samples from the highest score to the lowest, and what is true at each threshold on the way: what the
//! figures beside average precision are read from, and what a precision-recall curve draws.

use crate::columns::{keys_of_positives, rank_key, score_of};
use crate::labels::Labels;
use crate::radix::sorted;
use crate::scores::ScoreMatrix;

/// What is true when every sample scored at least `score` is taken as positive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperatingPoint {
    /// The threshold, a score that a positive sample has.
    pub score: f32,
    /// Samples scored at least that much.
    pub taken: u64,
    /// Positive ones among them.
    pub found: u64,
}

impl OperatingPoint {
    /// `found / taken`.
    #[must_use]
    pub fn precision(&self) -> f64 {
        self.found as f64 / self.taken as f64
    }

    /// `2 found / (taken + positives)`, the harmonic mean of precision and recall.
    #[must_use]
    pub fn f1(&self, positives: u64) -> f64 {
        2.0 * self.found as f64 / (self.taken + positives) as f64
    }
}

/// The samples of one class in order: scores from high to low, equal ones by descending sample. Scores are no NaN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranking {
    /// Key, then the sample's index turned round, then whether it is positive: ascending is the order above.
    ranked: Vec<u64>,
    positives: u64,
}

impl Ranking {
    /// Ranks one class of scores and labels of the same shape.
    #[must_use]
    pub fn new(scores: &ScoreMatrix<'_>, labels: &Labels, class: u32) -> Self {
        let samples = 0..scores.samples();
        let keys: Vec<u32> = samples
            .clone()
            .map(|sample| rank_key(scores.get(sample, class)))
            .collect();
        let shown: Vec<u32> = samples
            .filter(|sample| labels.contains(*sample, class))
            .collect();
        Self::of_class(&keys, &shown)
    }

    /// The same from the [`rank_key`] of each sample, and the samples that show the class, ascending.
    pub(crate) fn of_class(keys: &[u32], shown: &[u32]) -> Self {
        let mut ranked: Vec<u64> = (0u32..)
            .zip(keys)
            .map(|(sample, &key)| {
                // A split of 2³¹ samples has no scores that fit a memory.
                let turned = u64::from(!sample & 0x7FFF_FFFF);
                u64::from(key) << 32 | turned << 1
            })
            .collect();
        for &sample in shown {
            ranked[sample as usize] |= 1;
        }
        // By descending sample, as equal scores stay.
        ranked.reverse();
        let mut spare = vec![0; ranked.len()];
        let ranked = sorted(&mut ranked, &mut spare).to_vec();
        let positives = shown.len() as u64;
        Self { ranked, positives }
    }

    /// How many samples are positive.
    #[must_use]
    pub fn positives(&self) -> u64 {
        self.positives
    }

    /// Whether each sample is positive, from the highest score to the lowest, of equal ones the later sample first.
    pub fn in_order(&self) -> impl Iterator<Item = bool> {
        self.ranked.iter().map(|ranked| ranked & 1 == 1)
    }

    /// (sample, whether it is positive, whether the next one has a lower score), in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u32, bool, bool)> {
        let next = self.ranked.iter().skip(1).map(Some).chain([None]);
        self.ranked.iter().zip(next).map(|(ranked, next)| {
            let sample = !(ranked >> 1) as u32 & 0x7FFF_FFFF;
            let last = next.is_none_or(|next| next >> 32 != ranked >> 32);
            (sample, ranked & 1 == 1, last)
        })
    }

    /// The thresholds at which positives are found, from high to low; equal scores are one threshold. Between two of
    /// them recall stays and precision only falls.
    #[must_use]
    pub fn points(&self) -> Vec<OperatingPoint> {
        let (mut taken, mut found) = (0, 0);
        let mut points = Vec::new();
        for equal in self.ranked.chunk_by(|a, b| a >> 32 == b >> 32) {
            let new: u64 = equal.iter().map(|ranked| ranked & 1).sum();
            taken += equal.len() as u64;
            found += new;
            if new > 0 {
                // The upper half is a key, which is a u32.
                let score = score_of((equal[0] >> 32) as u32);
                points.push(OperatingPoint {
                    score,
                    taken,
                    found,
                });
            }
        }
        points
    }
}

/// The same for all decisions (samples × classes) as one ranking. Memory is that of the positives.
#[must_use]
pub fn points_of_all(scores: &ScoreMatrix<'_>, labels: &Labels) -> Vec<OperatingPoint> {
    let mut positives = keys_of_positives(scores, labels);
    positives.sort_unstable();
    let mut points: Vec<OperatingPoint> = Vec::new();
    for equal in positives.chunk_by(|a, b| a == b) {
        let before = points.last().map_or(0, |point| point.found);
        points.push(OperatingPoint {
            score: score_of(equal[0]),
            taken: 0,
            found: before + equal.len() as u64,
        });
    }
    positives.dedup();
    for &score in scores.as_slice() {
        let key = rank_key(score);
        // The highest threshold that takes it.
        let at = positives.partition_point(|threshold| *threshold < key);
        if let Some(point) = points.get_mut(at) {
            point.taken += 1;
        }
    }
    let mut taken = 0;
    for point in &mut points {
        taken += point.taken;
        point.taken = taken;
    }
    points
}
