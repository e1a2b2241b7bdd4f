//! The classes of a score matrix one by one, each ranked once for all figures that are read from it.
//!
//! Cost: scores become integers in the same order and go through a radix sort; the positives of a class are sorted apart
//! and merged, so no label is carried along. Memory is that of eighty columns.

use std::ops::Range;

use crate::labels::Labels;
use crate::radix::sorted;
use crate::ranking::OperatingPoint;
use crate::scores::{Layout, ScoreMatrix};

/// As many as COCO has, whose rows are then read from end to end: memory is faster so than when parts of rows are.
const CLASSES_PER_BLOCK: usize = 80;

/// One cache line of keys.
const TILE: usize = 16;

/// A float32's place in a ranking from high to low, as an integer. Not for NaN.
#[inline(always)]
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
#[inline(always)]
pub(crate) fn score_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 {
        key
    } else {
        !key & 0x7FFF_FFFF
    })
}

/// The keys of all labels that there are, sample by sample.
pub(crate) fn keys_of_positives(scores: &ScoreMatrix<'_>, labels: &Labels) -> Vec<u32> {
    (0..labels.samples())
        .flat_map(|sample| labels.of(sample).map(move |class| (sample, class)))
        .map(|(sample, class)| rank_key(scores.get(sample, class)))
        .collect()
}

/// One class, from its highest score to its lowest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column<'a> {
    /// [`rank_key`]s of all samples, in their order.
    pub(crate) of_samples: &'a [u32],
    /// The samples that show the class, ascending.
    pub(crate) shown: &'a [u32],
    /// The keys of all samples, ascending.
    pub(crate) keys: &'a [u32],
    /// Those of the positive ones, ascending.
    pub(crate) positives: &'a [u32],
    /// The thresholds at which positives are found.
    pub(crate) points: &'a [OperatingPoint],
    /// `[points]`: how many samples are scored more than that.
    pub(crate) above: &'a [u64],
}

/// Ranks one class after the other and shows each to `visit`; `positives` are the samples that show each class.
pub(crate) fn for_each_class(
    scores: &ScoreMatrix<'_>,
    positives: &[Vec<u32>],
    mut visit: impl FnMut(Column<'_>),
) {
    let mut block = Block::default();
    let mut rooms = [(); 2].map(|()| vec![0; scores.samples() as usize]);
    let mut found = Vec::new();
    let mut thresholds = Thresholds::default();
    for first in (0..positives.len()).step_by(CLASSES_PER_BLOCK) {
        let classes = first..positives.len().min(first + CLASSES_PER_BLOCK);
        block.load(scores, classes.clone());
        for (k, class) in classes.enumerate() {
            let of_samples = block.column(k);
            found.clear();
            found.extend(
                positives[class]
                    .iter()
                    .map(|&sample| of_samples[sample as usize]),
            );
            found.sort_unstable();
            let [keys, spare] = &mut rooms;
            keys.copy_from_slice(of_samples);
            let keys = sorted(keys, spare);
            thresholds.walk(keys, &found, (0, 0));
            visit(Column {
                of_samples,
                shown: &positives[class],
                keys,
                positives: &found,
                points: &thresholds.points,
                above: &thresholds.above,
            });
        }
    }
}

/// The thresholds at which positives are found, and what is true at each.
#[derive(Debug, Default)]
pub(crate) struct Thresholds {
    /// From high to low; equal scores are one threshold.
    pub(crate) points: Vec<OperatingPoint>,
    /// `[points]`: how many samples are scored more than that.
    pub(crate) above: Vec<u64>,
}

impl Thresholds {
    /// Fills both lists from the ascending keys of all samples and of the positives among them, behind `before` samples that
    /// are scored higher: (all, positive ones).
    pub(crate) fn walk(&mut self, keys: &[u32], positives: &[u32], before: (u64, u64)) {
        // Positives are few: most keys are passed over a stride at a time.
        const STRIDE: usize = 16;
        self.points.clear();
        self.above.clear();
        let (mut taken, mut found) = (0, before.1);
        for equal in positives.chunk_by(|a, b| a == b) {
            let key = equal[0];
            while keys
                .get(taken + STRIDE - 1)
                .is_some_and(|other| *other < key)
            {
                taken += STRIDE;
            }
            while keys.get(taken).is_some_and(|other| *other < key) {
                taken += 1;
            }
            self.above.push(before.0 + taken as u64);
            while keys.get(taken) == Some(&key) {
                taken += 1;
            }
            found += equal.len() as u64;
            self.points.push(OperatingPoint {
                score: score_of(key),
                taken: before.0 + taken as u64,
                found,
            });
        }
    }
}

/// Some neighbouring classes, turned from rows into columns of keys.
#[derive(Default)]
struct Block {
    samples: usize,
    /// `[classes of the block, samples]`.
    keys: Vec<u32>,
}

impl Block {
    fn load(&mut self, scores: &ScoreMatrix<'_>, classes: Range<usize>) {
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
                        match column[start..end].first_chunk_mut() {
                            // Of a length that is known: two stores.
                            Some(whole) => *whole = *tile,
                            None => column[start..end].copy_from_slice(&tile[..end - start]),
                        }
                    }
                }
            }
        }
    }

    /// The keys of the block's class `k`, `[samples]`.
    fn column(&self, k: usize) -> &[u32] {
        &self.keys[k * self.samples..(k + 1) * self.samples]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_put_scores_from_high_to_low() {
        let descending = [
            f32::INFINITY,
            f32::MAX,
            1.0,
            f32::MIN_POSITIVE,
            f32::from_bits(1),
            0.0,
            -f32::from_bits(1),
            -1.0,
            f32::MIN,
            f32::NEG_INFINITY,
        ];
        assert!(descending.map(rank_key).is_sorted_by(|a, b| a < b));
        assert_eq!(rank_key(-0.0), rank_key(0.0));
    }
}
