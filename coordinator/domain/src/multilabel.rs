//! Precision, recall and F1 of multi-label predictions, averaged per class (CP, CR, CF1) and over
//! all decisions (OP, OR, OF1), as multi-label papers report them beside mAP.
//!
//! Conventions, where papers differ:
//! - A label is predicted at probability ≥ 0.5, that is logit ≥ 0 ([`at_threshold`]), or when its
//!   class is among a sample's k highest scores: whatever they are ([`top_k`]: Y. Gong et al., ICLR
//!   2014; J. Wang et al., CNN-RNN, CVPR 2016), or only where they also reach 0.5
//!   ([`top_k_at_threshold`]: ML-GCN's `overall_topk`, Z.-M. Chen et al., CVPR 2019). Of equal scores
//!   the lower class index comes first.
//! - CP and CR leave out classes without a positive sample, as mAP does. A class with positives and
//!   no prediction has precision 0.
//! - CF1 is the harmonic mean of CP and CR, as in ML-GCN and the papers that compare with it;
//!   `mean_class_f1` is the mean of the classes' F1 (scikit-learn's macro F1), never higher, which
//!   other papers print as CF1 or macro F1.
//! - OP, OR and OF1 count every decision, false alarms in classes without a positive included.
//! - Without any positive sample there is no figure. A ratio of 0 to 0 beside it is 0.

use serde::{Deserialize, Serialize};

use crate::labels::Labels;
use crate::scores::{ScoreError, ScoreMatrix};

/// What the figures mean, to be printed beside them.
pub const DEFINITION: &str = "CP, CR: means over the classes with at least one positive; CF1: harmonic mean of CP and CR; \
     mean_class_f1: mean of the classes' F1; OP, OR, OF1: over all decisions; a label is predicted at p >= 0.5, or among the \
     top 3 of its image whatever their scores, or among the top 3 where p >= 0.5 too";

/// The figures, fractions of 1; all `None` where no sample has a label.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct MultilabelFigures {
    /// Precision, averaged over classes.
    pub cp: Option<f64>,
    /// Recall, averaged over classes.
    pub cr: Option<f64>,
    /// Harmonic mean of CP and CR.
    pub cf1: Option<f64>,
    /// Mean of the classes' F1; `None` also where an older version computed the figures.
    #[serde(default)]
    pub mean_class_f1: Option<f64>,
    /// Precision over all decisions.
    pub op: Option<f64>,
    /// Recall over all decisions.
    pub or: Option<f64>,
    /// Harmonic mean of OP and OR.
    pub of1: Option<f64>,
}

/// The figures when a label is predicted at logit ≥ 0, which is p ≥ 0.5.
///
/// # Errors
/// [`ScoreError::LabelsDiffer`] if the shapes differ; [`ScoreError::NotANumber`].
pub fn at_threshold(
    scores: &ScoreMatrix<'_>,
    labels: &Labels,
) -> Result<MultilabelFigures, ScoreError> {
    figures(scores, labels, |row, predicted| {
        predicted.extend(
            (0u32..)
                .zip(row)
                .filter(|(_, score)| **score >= 0.0)
                .map(|(c, _)| c),
        );
    })
}

/// The figures when each sample is given its `k` highest classes (all, if there are fewer).
///
/// # Errors
/// [`ScoreError::LabelsDiffer`] if the shapes differ; [`ScoreError::NotANumber`].
pub fn top_k(
    scores: &ScoreMatrix<'_>,
    labels: &Labels,
    k: u32,
) -> Result<MultilabelFigures, ScoreError> {
    let k = k.min(scores.classes()) as usize;
    figures(scores, labels, |row, predicted| highest(row, k, predicted))
}

/// The figures when each sample is given those of its `k` highest classes that reach logit 0, which
/// is p = 0.5.
///
/// # Errors
/// [`ScoreError::LabelsDiffer`] if the shapes differ; [`ScoreError::NotANumber`].
pub fn top_k_at_threshold(
    scores: &ScoreMatrix<'_>,
    labels: &Labels,
    k: u32,
) -> Result<MultilabelFigures, ScoreError> {
    let k = k.min(scores.classes()) as usize;
    figures(scores, labels, |row, predicted| {
        highest(row, k, predicted);
        predicted.retain(|class| row[*class as usize] >= 0.0);
    })
}

/// The classes of the `k` highest scores of a row into `predicted`, which is empty.
fn highest(row: &[f32], k: usize, predicted: &mut Vec<u32>) {
    if k > 0 {
        // Insertion into a list of at most k: k is 3 and most scores fail the first comparison.
        let mut lowest = f32::NEG_INFINITY;
        for (class, &score) in (0u32..).zip(row) {
            if predicted.len() >= k && score <= lowest {
                continue;
            }
            let place = predicted.partition_point(|&other| row[other as usize] >= score);
            predicted.truncate(k - 1);
            predicted.insert(place, class);
            lowest = predicted.last().map_or(lowest, |&last| row[last as usize]);
        }
    }
}

/// Counts hits, predictions and positives per class; `predict` fills in the classes of one sample.
fn figures(
    scores: &ScoreMatrix<'_>,
    labels: &Labels,
    predict: impl Fn(&[f32], &mut Vec<u32>),
) -> Result<MultilabelFigures, ScoreError> {
    scores.check(labels)?;
    let positives = labels.support();
    let mut predictions = vec![0u32; positives.len()];
    let mut hits = vec![0u32; positives.len()];
    let (mut row, mut predicted) = (Vec::new(), Vec::new());
    for sample in 0..scores.samples() {
        scores.copy_sample(sample, &mut row);
        predicted.clear();
        predict(&row, &mut predicted);
        for &class in &predicted {
            predictions[class as usize] += 1;
            hits[class as usize] += u32::from(labels.contains(sample, class));
        }
    }
    Ok(summarise(&positives, &predictions, &hits))
}

fn summarise(positives: &[u32], predictions: &[u32], hits: &[u32]) -> MultilabelFigures {
    let shown: Vec<usize> = (0..positives.len())
        .filter(|&class| positives[class] > 0)
        .collect();
    if shown.is_empty() {
        return MultilabelFigures::default();
    }
    let mean = |of: &[u32]| {
        let sum: f64 = shown
            .iter()
            .map(|&class| ratio(hits[class].into(), of[class].into()))
            .sum();
        sum / shown.len() as f64
    };
    let total = |counts: &[u32]| counts.iter().map(|n| u64::from(*n)).sum::<u64>();
    let f1 = |class: &usize| {
        let given = u64::from(predictions[*class]) + u64::from(positives[*class]);
        ratio(2 * u64::from(hits[*class]), given)
    };
    let mean_class_f1 = shown.iter().map(f1).sum::<f64>() / shown.len() as f64;
    let (cp, cr) = (mean(predictions), mean(positives));
    let (op, or) = (
        ratio(total(hits), total(predictions)),
        ratio(total(hits), total(positives)),
    );
    MultilabelFigures {
        cp: Some(cp),
        cr: Some(cr),
        cf1: Some(harmonic_mean(cp, cr)),
        mean_class_f1: Some(mean_class_f1),
        op: Some(op),
        or: Some(or),
        of1: Some(harmonic_mean(op, or)),
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

fn harmonic_mean(a: f64, b: f64) -> f64 {
    if a + b == 0.0 {
        0.0
    } else {
        2.0 * a * b / (a + b)
    }
}

#[cfg(test)]
mod tests;
