//! Scores of a validation split, as every figure reads them, and what can be wrong with them.

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

    /// One score; the sample and class are within the matrix.
    pub(crate) fn get(&self, sample: u32, class: u32) -> f32 {
        let (sample, class) = (sample as usize, class as usize);
        self.scores[match self.layout {
            Layout::SampleMajor => sample * self.classes as usize + class,
            Layout::ClassMajor => class * self.samples as usize + sample,
        }]
    }

    /// The scores of one sample, `[classes]`, put into `room` where they do not lie beside each other.
    pub(crate) fn sample<'b>(&self, sample: u32, room: &'b mut Vec<f32>) -> &'b [f32]
    where
        'a: 'b,
    {
        let (sample, classes) = (sample as usize, self.classes as usize);
        match self.layout {
            Layout::SampleMajor => &self.scores[sample * classes..][..classes],
            Layout::ClassMajor => {
                let column = self.scores.iter().skip(sample);
                room.clear();
                room.extend(column.step_by(self.samples as usize));
                room
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
pub(crate) fn first_nan(scores: &[f32]) -> Option<usize> {
    let chunk = scores
        .chunks(1024)
        .position(|chunk| chunk.iter().fold(false, |nan, score| nan | score.is_nan()))?;
    let start = chunk * 1024;
    scores[start..]
        .iter()
        .position(|score| score.is_nan())
        .map(|at| start + at)
}
