//! What is scored at an evaluation: the validation split, and beside it what shows why training figures differ from
//! validation's. All of it is one list of rows, so that sharing it out, keeping each row once and scoring again what a
//! lost rank left are the same for every part.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::permutation::permutation;

/// `run.train_figures`: which figures of training pictures are taken at each evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainFigures {
    /// None.
    Off,
    /// Online, clean, and clean with batch statistics.
    On,
    /// Every cause of their differences apart.
    Decomposed,
}

/// How a row is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// A validation picture, in evaluation mode. Always the first rows: row and sample id are one.
    Val,
    /// The same by the average of the weights (`train.ema_decay`).
    ValAverage,
    /// A training picture, transformed as in validation, in evaluation mode.
    TrainClean,
    /// The same, normalised by batch statistics.
    TrainBatch,
    /// A training picture, augmented as in the epoch that ended, in evaluation mode.
    TrainCrops,
    /// The same, normalised by batch statistics: what training computes, but for weights that stand still.
    TrainCropsBatch,
}

impl Way {
    /// Whether the row's picture is of the training split.
    #[must_use]
    pub fn is_of_training(self) -> bool {
        !matches!(self, Self::Val | Self::ValAverage)
    }
}

/// One figure of an evaluation beside the validation mAP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Validation mAP by the average of the weights.
    ValAverage,
    /// Scores collected while the epoch trained: under augmentation, by batch statistics, by weights that moved.
    Online,
    /// Training pictures as in validation.
    TrainClean,
    /// The same with batch statistics.
    TrainBatch,
    /// Training pictures under the epoch's own augmentation, in evaluation mode.
    TrainCrops,
    /// The same with batch statistics.
    TrainCropsBatch,
    /// The mean of four mAPs: the pictures of each quarter of the epoch, scored as [`Figure::TrainCropsBatch`], ranked by
    /// themselves. What ranking a quarter by itself does where weights stand still.
    TrainCropsBatchQuarters,
    /// [`Figure::Online`] of the pictures that the clean figures are taken over.
    OnlineSubset,
    /// The same, each quarter of the epoch ranked by itself: the mean of four mAPs.
    OnlineSubsetQuarters,
    /// [`Figure::Online`] of the epoch's last quarter.
    OnlineLastQuarter,
}

impl Figure {
    /// In words, for terminal and reports.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::ValAverage => "validation, averaged weights",
            Self::Online => "training, online",
            Self::TrainClean => "training, clean",
            Self::TrainBatch => "training, clean with batch statistics",
            Self::TrainCrops => "training, augmented",
            Self::TrainCropsBatch => "training, augmented with batch statistics",
            Self::TrainCropsBatchQuarters => {
                "training, augmented with batch statistics, quarters ranked apart"
            }
            Self::OnlineSubset => "training, online, same pictures as clean",
            Self::OnlineSubsetQuarters => "training, online, same pictures, quarters ranked apart",
            Self::OnlineLastQuarter => "training, online, last quarter of the epoch",
        }
    }

    /// As it is written in files: `online`, `train_clean`, ….
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ValAverage => "val_average",
            Self::Online => "online",
            Self::TrainClean => "train_clean",
            Self::TrainBatch => "train_batch",
            Self::TrainCrops => "train_crops",
            Self::TrainCropsBatch => "train_crops_batch",
            Self::TrainCropsBatchQuarters => "train_crops_batch_quarters",
            Self::OnlineSubset => "online_subset",
            Self::OnlineSubsetQuarters => "online_subset_quarters",
            Self::OnlineLastQuarter => "online_last_quarter",
        }
    }
}

/// The rows of every evaluation of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sheet {
    parts: Vec<(Way, u32)>,
    train_samples: Vec<u32>,
    online: bool,
}

impl Sheet {
    /// For a validation split of `val_samples`; `average`: the run keeps an average of its weights. The clean figures are
    /// taken over at most `most` of the `train_samples` training samples, the same at every evaluation.
    #[must_use]
    pub fn new(
        seed: u64,
        val_samples: u32,
        average: bool,
        figures: TrainFigures,
        (train_samples, most): (u32, u32),
    ) -> Self {
        let mut parts = vec![(Way::Val, val_samples)];
        if average {
            parts.push((Way::ValAverage, val_samples));
        }
        let ways: &[Way] = match figures {
            TrainFigures::Off => &[],
            TrainFigures::On => &[Way::TrainClean, Way::TrainBatch],
            TrainFigures::Decomposed => &[
                Way::TrainClean,
                Way::TrainBatch,
                Way::TrainCrops,
                Way::TrainCropsBatch,
            ],
        };
        let mut subset = Vec::new();
        if !ways.is_empty() {
            // No epoch of a run has this number, so the choice is of no epoch's order.
            subset = permutation(seed, u32::MAX, train_samples);
            // In the order drawn: neighbours in a file may be alike, and these share batches.
            subset.truncate(most as usize);
        }
        let count = subset.len() as u32; // a split is counted in u32
        parts.extend(ways.iter().map(|&way| (way, count)));
        Self {
            parts,
            train_samples: subset,
            online: figures != TrainFigures::Off,
        }
    }

    /// From what was made of it before.
    #[must_use]
    pub fn from_parts(parts: Vec<(Way, u32)>, train_samples: Vec<u32>, online: bool) -> Self {
        Self {
            parts,
            train_samples,
            online,
        }
    }

    /// Each way with how many rows it has, in order.
    #[must_use]
    pub fn parts(&self) -> &[(Way, u32)] {
        &self.parts
    }

    /// The training samples that are scored.
    #[must_use]
    pub fn train_samples(&self) -> &[u32] {
        &self.train_samples
    }

    /// Whether the scores of training steps are collected.
    #[must_use]
    pub fn online(&self) -> bool {
        self.online
    }

    /// Rows of an evaluation.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.parts.iter().map(|(_, rows)| rows).sum()
    }

    /// Rows beside the validation split's.
    #[must_use]
    pub fn further_rows(&self) -> u32 {
        self.parts.iter().skip(1).map(|(_, rows)| rows).sum()
    }

    /// The rows of each way, in order.
    pub fn ranges(&self) -> impl Iterator<Item = (Way, Range<u32>)> {
        self.parts.iter().scan(0, |next, &(way, rows)| {
            let start = *next;
            *next += rows;
            Some((way, start..*next))
        })
    }

    /// How a row is scored, and the sample id in its split; `None` beyond the last.
    #[must_use]
    pub fn place(&self, row: u32) -> Option<(Way, u32)> {
        let (way, range) = self.ranges().find(|(_, range)| range.contains(&row))?;
        let at = row - range.start;
        let sample = if way.is_of_training() {
            *self.train_samples.get(at as usize)?
        } else {
            at
        };
        Some((way, sample))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_figures_the_rows_are_the_validation_split() {
        let sheet = Sheet::new(1, 7, false, TrainFigures::Off, (100, 10));
        assert_eq!((sheet.rows(), sheet.further_rows()), (7, 0));
        assert!(!sheet.online() && sheet.train_samples().is_empty());
        assert_eq!(sheet.place(6), Some((Way::Val, 6)));
        assert_eq!(sheet.place(7), None);
    }

    #[test]
    fn every_row_has_one_way_and_every_way_the_same_training_samples() {
        let sheet = Sheet::new(1, 7, true, TrainFigures::Decomposed, (100, 10));
        assert_eq!(sheet.rows(), 7 + 7 + 4 * 10);
        let mut seen = std::collections::BTreeMap::<Way, Vec<u32>>::new();
        for row in 0..sheet.rows() {
            let (way, sample) = sheet.place(row).unwrap();
            seen.entry(way).or_default().push(sample);
        }
        assert_eq!(seen[&Way::Val], (0..7).collect::<Vec<_>>());
        assert_eq!(seen[&Way::ValAverage], seen[&Way::Val]);
        for way in [
            Way::TrainClean,
            Way::TrainBatch,
            Way::TrainCrops,
            Way::TrainCropsBatch,
        ] {
            assert_eq!(seen[&way], sheet.train_samples());
        }
        let mut distinct = sheet.train_samples().to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 10);
        assert!(distinct.iter().all(|sample| *sample < 100));
    }

    #[test]
    fn the_subset_is_of_the_seed_and_no_larger_than_the_split() {
        let subset = |seed, split| {
            let sheet = Sheet::new(seed, 7, false, TrainFigures::On, (split, 10));
            sheet.train_samples().to_vec()
        };
        assert_eq!(subset(1, 100), subset(1, 100));
        assert_ne!(subset(1, 100), subset(2, 100));
        let mut all = subset(1, 4);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
    }
}
