//! The rows of an evaluation as batches: which pictures, how transformed, and in which mode the model scores them.

use data::loader::Purpose;
use proto::v1::ScoringSpec;
use proto::v1::scoring::Way;

/// What the rows of an evaluation stand for; made by the coordinator.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows {
    /// Way, first row and count of each part.
    parts: Vec<(Way, u32, u32)>,
    train_samples: Vec<u32>,
    /// Whether the scores of training steps are sent too.
    pub(crate) online: bool,
}

/// Rows that are scored in one go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowBatch {
    pub(crate) way: Way,
    /// The rows this rank was asked for.
    pub(crate) asked: Vec<u32>,
    /// The rows of the whole batch, and their samples.
    rows: Vec<u32>,
    pub(crate) samples: Vec<u32>,
}

impl RowBatch {
    /// Split and transform.
    pub(crate) fn purpose(&self) -> Purpose {
        match self.way {
            Way::Val | Way::ValAverage | Way::Unspecified => Purpose::Val,
            Way::TrainClean | Way::TrainBatch => Purpose::TrainPlain,
            Way::TrainCrops | Way::TrainCropsBatch => Purpose::Train,
        }
    }

    /// Whether it is normalised by its own statistics.
    pub(crate) fn by_batch(&self) -> bool {
        by_batch(self.way)
    }

    /// The row of a sample of this batch, if it was asked for.
    pub(crate) fn row_of(&self, sample: u32) -> Option<u32> {
        let at = self.samples.iter().position(|known| *known == sample)?;
        let row = self.rows.get(at)?;
        self.asked.contains(row).then_some(*row)
    }
}

fn by_batch(way: Way) -> bool {
    matches!(way, Way::TrainBatch | Way::TrainCropsBatch)
}

impl Rows {
    /// From the run's spec; one that has none means that rows are the `val` validation samples.
    pub(crate) fn new(spec: Option<&ScoringSpec>, val: u32) -> Self {
        let Some(spec) = spec else {
            return Self {
                parts: vec![(Way::Val, 0, val)],
                ..Self::default()
            };
        };
        let mut next = 0;
        let parts = spec.parts.iter().map(|part| {
            let first = next;
            next += part.rows;
            (part.way(), first, part.rows)
        });
        Self {
            parts: parts.collect(),
            train_samples: spec.train_samples.clone(),
            online: spec.online,
        }
    }

    /// Cuts rows, ascending, into batches: stretches of `size` rows of each part (of 2 at least, and 1 more where a batch would
    /// hold a single picture, where batch statistics count). A batch is the same whoever is asked for which of its rows,
    /// because sums over it round as its size has it: so figures do not depend on who died.
    pub(crate) fn batches(&self, rows: &[u32], size: usize) -> Vec<RowBatch> {
        let part_of = |row: u32| {
            let mut parts = self.parts.iter();
            parts.find(|(_, first, count)| (*first..first + count).contains(&row))
        };
        let mut batches = Vec::new();
        for stretch in rows.chunk_by(|a, b| part_of(*a) == part_of(*b)) {
            // A row of no part is none that the coordinator could mean.
            let Some(&(way, first, count)) = stretch.first().and_then(|&start| part_of(start))
            else {
                continue;
            };
            let sample = |row: u32| match way {
                Way::Val | Way::ValAverage | Way::Unspecified => row - first,
                // The coordinator counts as many rows as there are samples.
                _ => self
                    .train_samples
                    .get((row - first) as usize)
                    .copied()
                    .unwrap_or(u32::MAX),
            };
            let size = size.max(if by_batch(way) { 2 } else { 1 }) as u32; // a micro-batch
            let block = |row: u32| {
                let (at, blocks) = ((row - first) / size, (count / size).max(1));
                // What is left over joins the last block if it is a single one that has no statistics.
                if by_batch(way) && count % size == 1 {
                    at.min(blocks - 1)
                } else {
                    at
                }
            };
            for asked in stretch.chunk_by(|a, b| block(*a) == block(*b)) {
                let number = block(asked[0]);
                let begins = first + number * size;
                let ends = (begins..first + count)
                    .find(|row| block(*row) != number)
                    .unwrap_or(first + count);
                batches.push(RowBatch {
                    way,
                    asked: asked.to_vec(),
                    rows: (begins..ends).collect(),
                    samples: (begins..ends).map(sample).collect(),
                });
            }
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::Scoring;

    fn rows(val: u32, train: u32) -> Rows {
        let part = |way: Way, rows| Scoring {
            way: way.into(),
            rows,
        };
        let spec = ScoringSpec {
            parts: vec![
                part(Way::Val, val),
                part(Way::ValAverage, val),
                part(Way::TrainClean, train),
                part(Way::TrainCropsBatch, train),
            ],
            train_samples: (0..train).map(|i| 1000 + i).collect(),
            online: true,
        };
        Rows::new(Some(&spec), val)
    }

    /// Way and sample of a row of `rows(3, 5)`.
    fn what(row: u32) -> (Way, u32) {
        match row {
            0..3 => (Way::Val, row),
            3..6 => (Way::ValAverage, row - 3),
            6..11 => (Way::TrainClean, 1000 + row - 6),
            _ => (Way::TrainCropsBatch, 1000 + row - 11),
        }
    }

    /// Whichever rows are left when others have died: all subsets of 16 rows.
    #[test]
    fn every_row_is_scored_once_in_a_batch_of_its_own_way_whichever_are_asked_for() {
        let rows = rows(3, 5);
        for size in 1..5 {
            for subset in 0_u32..1 << 16 {
                let asked: Vec<u32> = (0..16).filter(|row| subset >> row & 1 == 1).collect();
                let mut scored = Vec::new();
                for batch in rows.batches(&asked, size) {
                    let known = batch.samples.iter().filter_map(|id| batch.row_of(*id));
                    let known: Vec<u32> = known.collect();
                    assert_eq!(known, batch.asked, "of {asked:?} by {size}");
                    for row in &known {
                        let (way, sample) = what(*row);
                        assert_eq!((batch.way, batch.row_of(sample)), (way, Some(*row)));
                    }
                    scored.extend(known);
                }
                assert_eq!(scored, asked, "by {size}");
            }
        }
    }

    #[test]
    fn a_batch_is_the_same_whoever_scores_which_of_its_rows() {
        for (train, size) in [(7, 3), (8, 3), (2, 5), (9, 4), (12, 4), (3, 2)] {
            let rows = rows(5, train);
            let all: Vec<u32> = (0..10 + 2 * train).collect();
            let whole = rows.batches(&all, size);
            let mut by_batch = whole.iter().filter(|batch| batch.by_batch());
            assert!(by_batch.all(|batch| batch.samples.len() >= 2), "{whole:?}");
            for cut in 0..all.len() {
                let (left, right) = all.split_at(cut);
                let parts = [rows.batches(left, size), rows.batches(right, size)].concat();
                for part in parts {
                    let same = whole.iter().find(|batch| batch.rows == part.rows).unwrap();
                    assert_eq!(same.samples, part.samples);
                    assert!(part.asked.iter().all(|row| same.asked.contains(row)));
                }
            }
        }
    }

    #[test]
    fn a_run_without_a_spec_scores_its_validation_split() {
        let batches = Rows::new(None, 7).batches(&[3, 4, 5, 6], 2);
        let found: Vec<_> = batches.iter().map(|batch| batch.samples.clone()).collect();
        assert_eq!(found, [vec![2, 3], vec![4, 5], vec![6]]);
        assert_eq!(
            (batches[0].way, batches[0].asked.clone()),
            (Way::Val, vec![3])
        );
    }
}
