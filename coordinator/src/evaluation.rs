//! Scores of the validation split by (generation, step, sample id), and the figures made of them.

use domain::average_precision::MeanAveragePrecision;
use domain::multilabel::MultilabelFigures;
use serde::{Deserialize, Serialize};

/// The figures of one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Per-class average precision and its mean.
    pub average_precision: MeanAveragePrecision,
    /// A label is predicted at p >= 0.5.
    pub at_threshold: MultilabelFigures,
    /// A label is predicted among the three highest of its picture.
    pub top3: MultilabelFigures,
    /// Samples left out because they could not be read, ascending.
    pub skipped: Vec<u32>,
}

/// One evaluation as the run's history keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// Steps committed before it.
    pub step: u64,
    /// The epoch that had ended, from 0.
    pub epoch: u32,
    /// The generation that scored it.
    pub generation: u64,
    /// From the first score to the figures, seconds.
    pub seconds: f64,
    /// The figures.
    pub metrics: Metrics,
}
