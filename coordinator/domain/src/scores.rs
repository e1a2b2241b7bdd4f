//! Scores of a validation split: a view for the figures, and the table that gathers them so that
//! every sample counts exactly once.

use crate::labels::Labels;

/// Why scores cannot be ranked or gathered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// A score has no place in a ranking.
    #[error(
        "score of sample {sample}, class {class} is not a number: the model has diverged, \
         lower the learning rate or look at the loss before this evaluation"
    )]
    NotANumber {
        /// The sample's position in the split.
        sample: u32,
        /// The class.
        class: u32,
    },
    /// The number of scores is not what the shape says.
    #[error(
        "{found} scores do not make {samples} samples of {classes} classes: \
         check that scores and annotations are of the same split and class list"
    )]
    WrongShape {
        /// How many scores came.
        found: usize,
        /// How many samples they are for.
        samples: u32,
        /// How many classes there are.
        classes: u32,
    },
    /// Scores and labels are of different sizes.
    #[error(
        "scores are {scores_samples} × {scores_classes} (samples × classes) but labels are \
         {labels_samples} × {labels_classes}: check that both are of the same split and class list"
    )]
    LabelsDiffer {
        /// Samples with scores.
        scores_samples: u32,
        /// Classes with scores.
        scores_classes: u32,
        /// Samples with labels.
        labels_samples: u32,
        /// Classes with labels.
        labels_classes: u32,
    },
    /// A sample that the split does not have.
    #[error("sample {sample} is not in a split of {samples}: check which split the scores are of")]
    NoSuchSample {
        /// The sample that came.
        sample: u32,
        /// The size of the split.
        samples: u32,
    },
    /// The figures were asked for before every sample had its scores.
    #[error(
        "{unscored} of {samples} samples have no score yet, sample {first} is the first: \
         assign them to a rank before computing figures"
    )]
    Incomplete {
        /// How many lack a score.
        unscored: u32,
        /// The size of the split.
        samples: u32,
        /// The first sample that lacks one.
        first: u32,
    },
}

/// In which order scores lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[samples, classes]`: as workers send them.
    SampleMajor,
    /// `[classes, samples]`.
    ClassMajor,
}

/// Scores (float32 logits, or anything with the same order) of `samples` × `classes`, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct ScoreMatrix<'a> {
    scores: &'a [f32],
    samples: u32,
    classes: u32,
    layout: Layout,
}

impl<'a> ScoreMatrix<'a> {
    /// A view of `scores` in the given layout.
    ///
    /// # Errors
    /// [`ScoreError::WrongShape`] unless there are `samples * classes` scores.
    pub fn new(
        scores: &'a [f32],
        samples: u32,
        classes: u32,
        layout: Layout,
    ) -> Result<Self, ScoreError> {
        if scores.len() as u64 != u64::from(samples) * u64::from(classes) {
            return Err(ScoreError::WrongShape {
                found: scores.len(),
                samples,
                classes,
            });
        }
        Ok(Self {
            scores,
            samples,
            classes,
            layout,
        })
    }

    /// How many samples.
    #[must_use]
    pub fn samples(&self) -> u32 {
        self.samples
    }

    /// How many classes.
    #[must_use]
    pub fn classes(&self) -> u32 {
        self.classes
    }

    /// How the scores lie in memory.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// All scores, in [`Self::layout`] order.
    #[must_use]
    pub fn as_slice(&self) -> &'a [f32] {
        self.scores
    }

    /// The scores of one sample, `[classes]`, into `row`.
    pub(crate) fn copy_sample(&self, sample: u32, row: &mut Vec<f32>) {
        row.clear();
        let (sample, classes) = (sample as usize, self.classes as usize);
        match self.layout {
            Layout::SampleMajor => {
                row.extend_from_slice(&self.scores[sample * classes..][..classes]);
            }
            Layout::ClassMajor => {
                row.extend(
                    self.scores
                        .iter()
                        .skip(sample)
                        .step_by(self.samples as usize),
                );
            }
        }
    }

    /// That `labels` are of the same shape and no score is NaN.
    pub(crate) fn check(&self, labels: &Labels) -> Result<(), ScoreError> {
        if (self.samples, self.classes) != (labels.samples(), labels.classes()) {
            return Err(ScoreError::LabelsDiffer {
                scores_samples: self.samples,
                scores_classes: self.classes,
                labels_samples: labels.samples(),
                labels_classes: labels.classes(),
            });
        }
        match first_nan(self.scores) {
            None => Ok(()),
            Some(at) => {
                let (sample, class) = match self.layout {
                    Layout::SampleMajor => (at / self.classes as usize, at % self.classes as usize),
                    Layout::ClassMajor => (at % self.samples as usize, at / self.samples as usize),
                };
                Err(ScoreError::NotANumber {
                    sample: sample as u32,
                    class: class as u32,
                })
            }
        }
    }
}

/// Where the first NaN is. Whole chunks are looked at without a branch per score.
fn first_nan(scores: &[f32]) -> Option<usize> {
    let chunk = scores
        .chunks(1024)
        .position(|chunk| chunk.iter().fold(false, |nan, score| nan | score.is_nan()))?;
    let start = chunk * 1024;
    scores[start..]
        .iter()
        .position(|score| score.is_nan())
        .map(|at| start + at)
}

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
        ScoreMatrix {
            scores: &self.scores,
            samples: self.labels.samples(),
            classes: self.labels.classes(),
            layout: Layout::SampleMajor,
        }
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
