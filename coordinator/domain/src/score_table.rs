//! The table that gathers the scores of one evaluation, so that every sample counts exactly once.

use crate::labels::Labels;
use crate::scores::{Layout, ScoreError, ScoreMatrix, first_nan};

/// What became of the scores of one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// They are the sample's scores now.
    New,
    /// The sample had its scores (or was skipped) already; these were dropped.
    Repeated,
}

/// Scores of one evaluation as they arrive from the ranks, each sample once.
///
/// One table belongs to one (lineage, step): scores of a step that became void go with their table.
/// A sample that arrives again (a retried chunk, a padded duplicate, a sample assigned a second
/// time because its rank was believed dead) changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreTable {
    samples: u32,
    classes: u32,
    scores: Vec<f32>,
    state: Vec<SampleState>,
    open: u32,
    skipped: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SampleState {
    Unscored,
    Scored,
    Skipped,
}

/// The scores of a finished evaluation, samples that were skipped left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    sample_ids: Vec<u32>,
    scores: Vec<f32>,
    labels: Labels,
}

impl Scored {
    /// The samples that have scores, ascending: row `i` of the others is sample `sample_ids[i]`.
    #[must_use]
    pub fn sample_ids(&self) -> &[u32] {
        &self.sample_ids
    }

    /// The scores, `[sample_ids, classes]`.
    #[must_use]
    pub fn matrix(&self) -> ScoreMatrix<'_> {
        let (samples, classes) = (self.labels.samples(), self.labels.classes());
        ScoreMatrix::new(&self.scores, samples, classes, Layout::SampleMajor)
            .expect("finish() copied one row of scores for each row of labels")
    }

    /// The part whose sample ids are in `range`, counted from its start.
    #[must_use]
    pub fn part(&self, range: std::ops::Range<u32>) -> Self {
        let first = self.sample_ids.partition_point(|id| *id < range.start);
        let end = self.sample_ids.partition_point(|id| *id < range.end);
        let classes = self.labels.classes() as usize;
        let (first_row, end_row) = (first as u32, end as u32); // no more than there are samples
        let rows: Vec<u32> = (first_row..end_row).collect();
        let ids = self.sample_ids[first..end].iter();
        Self {
            sample_ids: ids.map(|id| id - range.start).collect(),
            scores: self.scores[first * classes..end * classes].to_vec(),
            labels: self
                .labels
                .select(&rows)
                .expect("the rows are of this very matrix"),
        }
    }

    /// These scores `[sample_ids, classes]` with their labels, in any order.
    ///
    /// # Errors
    /// [`ScoreError::WrongShape`] unless there is a row of scores for each row of labels.
    pub fn new(sample_ids: Vec<u32>, scores: Vec<f32>, labels: Labels) -> Result<Self, ScoreError> {
        let (samples, classes) = (labels.samples(), labels.classes());
        ScoreMatrix::new(&scores, samples, classes, Layout::SampleMajor)?;
        Ok(Self {
            sample_ids,
            scores,
            labels,
        })
    }

    /// The labels of the same samples.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.labels
    }
}

impl ScoreTable {
    /// An empty table for a split: 4 bytes a score, and 1 a sample.
    #[must_use]
    pub fn new(samples: u32, classes: u32) -> Self {
        Self {
            samples,
            classes,
            scores: vec![0.0; samples as usize * classes as usize],
            state: vec![SampleState::Unscored; samples as usize],
            open: samples,
            skipped: 0,
        }
    }

    /// Takes the scores `[classes]` of one sample. The first to arrive stay.
    ///
    /// # Errors
    /// [`ScoreError::NoSuchSample`], [`ScoreError::WrongShape`] or [`ScoreError::NotANumber`]; the
    /// table is then unchanged.
    pub fn insert(&mut self, sample: u32, scores: &[f32]) -> Result<Inserted, ScoreError> {
        self.check_sample(sample)?;
        if scores.len() != self.classes as usize {
            let (found, classes) = (scores.len(), self.classes);
            return Err(ScoreError::WrongShape {
                found,
                samples: 1,
                classes,
            });
        }
        if let Some(class) = first_nan(scores) {
            return Err(ScoreError::NotANumber {
                sample,
                class: class as u32,
            });
        }
        if self.state[sample as usize] != SampleState::Unscored {
            return Ok(Inserted::Repeated);
        }
        let start = sample as usize * scores.len();
        self.scores[start..start + scores.len()].copy_from_slice(scores);
        self.state[sample as usize] = SampleState::Scored;
        self.open -= 1;
        Ok(Inserted::New)
    }

    /// Leaves a sample out of the evaluation (its image cannot be read), unless it has scores.
    ///
    /// # Errors
    /// [`ScoreError::NoSuchSample`].
    pub fn skip(&mut self, sample: u32) -> Result<Inserted, ScoreError> {
        self.check_sample(sample)?;
        if self.state[sample as usize] != SampleState::Unscored {
            return Ok(Inserted::Repeated);
        }
        self.state[sample as usize] = SampleState::Skipped;
        self.open -= 1;
        self.skipped += 1;
        Ok(Inserted::New)
    }

    /// Whether every sample is scored or skipped.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.open == 0
    }

    /// How many samples have scores.
    #[must_use]
    pub fn scored_count(&self) -> u32 {
        self.samples - self.open - self.skipped
    }

    /// How many samples were left out.
    #[must_use]
    pub fn skipped_count(&self) -> u32 {
        self.skipped
    }

    /// The samples that still need a rank to score them, ascending.
    #[must_use]
    pub fn unscored(&self) -> Vec<u32> {
        self.in_state(SampleState::Unscored)
    }

    /// The samples that were left out, ascending.
    #[must_use]
    pub fn skipped(&self) -> Vec<u32> {
        self.in_state(SampleState::Skipped)
    }

    /// The scores with their labels, for the figures.
    ///
    /// # Errors
    /// [`ScoreError::Incomplete`] while samples lack scores; [`ScoreError::LabelsDiffer`] if
    /// `labels` are of another split.
    pub fn finish(&self, labels: &Labels) -> Result<Scored, ScoreError> {
        if let Some(&first) = self.unscored().first() {
            let (unscored, samples) = (self.open, self.samples);
            return Err(ScoreError::Incomplete {
                unscored,
                samples,
                first,
            });
        }
        let differ = ScoreError::LabelsDiffer {
            scores_samples: self.samples,
            scores_classes: self.classes,
            labels_samples: labels.samples(),
            labels_classes: labels.classes(),
        };
        if (self.samples, self.classes) != (labels.samples(), labels.classes()) {
            return Err(differ);
        }
        let sample_ids = self.in_state(SampleState::Scored);
        let classes = self.classes as usize;
        let mut scores = Vec::with_capacity(sample_ids.len() * classes);
        for &sample in &sample_ids {
            scores.extend_from_slice(&self.scores[sample as usize * classes..][..classes]);
        }
        let labels = labels.select(&sample_ids).map_err(|_| differ)?;
        Ok(Scored {
            sample_ids,
            scores,
            labels,
        })
    }

    fn in_state(&self, state: SampleState) -> Vec<u32> {
        (0..self.samples)
            .filter(|&sample| self.state[sample as usize] == state)
            .collect()
    }

    fn check_sample(&self, sample: u32) -> Result<(), ScoreError> {
        if sample < self.samples {
            return Ok(());
        }
        Err(ScoreError::NoSuchSample {
            sample,
            samples: self.samples,
        })
    }
}

#[cfg(test)]
mod tests;
