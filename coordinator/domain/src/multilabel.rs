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

use fearless_simd::{Level, Simd, dispatch};
use serde::{Deserialize, Serialize};

use crate::columns::rank_key;
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

/// The figures by each way of predicting labels.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ByEachWay {
    /// At logit ≥ 0, which is p ≥ 0.5.
    pub at_threshold: MultilabelFigures,
    /// Each sample's `k` highest classes (all, if there are fewer).
    pub top_k: MultilabelFigures,
    /// Those of its `k` highest classes that reach logit 0.
    pub top_k_at_threshold: MultilabelFigures,
}

/// The figures when a label is predicted at logit ≥ 0, which is p ≥ 0.5.
///
/// # Errors
/// [`ScoreError::LabelsDiffer`] if the shapes differ; [`ScoreError::NotANumber`].
pub fn at_threshold(
    scores: &ScoreMatrix<'_>,
    labels: &Labels,
) -> Result<MultilabelFigures, ScoreError> {
    Ok(by_each_way(scores, labels, 0)?.at_threshold)
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
    Ok(by_each_way(scores, labels, k)?.top_k)
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
    Ok(by_each_way(scores, labels, k)?.top_k_at_threshold)
}

/// All three in one pass over the scores.
///
/// # Errors
/// [`ScoreError::LabelsDiffer`] if the shapes differ; [`ScoreError::NotANumber`].
pub fn by_each_way(
    scores: &ScoreMatrix<'_>,
    labels: &Labels,
    k: u32,
) -> Result<ByEachWay, ScoreError> {
    scores.check(labels)?;
    Ok(count(scores, labels, k))
}

/// The same, of scores and labels that are known to be of one shape and without NaN.
pub(crate) fn count(scores: &ScoreMatrix<'_>, labels: &Labels, k: u32) -> ByEachWay {
    dispatch!(Level::new(), simd => vectorized(simd, scores, labels, k))
}

#[inline(always)]
fn vectorized<S: Simd>(simd: S, scores: &ScoreMatrix<'_>, labels: &Labels, k: u32) -> ByEachWay {
    simd.vectorize(
        #[inline(always)]
        || count_rows(scores, labels, k),
    )
}

#[inline(always)]
fn count_rows(scores: &ScoreMatrix<'_>, labels: &Labels, k: u32) -> ByEachWay {
    let k = k.min(scores.classes()) as usize;
    let tally = || Tally {
        predictions: vec![0; scores.classes() as usize],
        hits: vec![0; scores.classes() as usize],
    };
    let (mut half, mut top, mut both) = (tally(), tally(), tally());
    let half_key = rank_key(0.0);
    let mut room = Vec::new();
    let mut keys = vec![0; scores.classes() as usize];
    for sample in 0..scores.samples() {
        let row = scores.sample(sample, &mut room);
        for ((key, count), &score) in keys.iter_mut().zip(&mut half.predictions).zip(row) {
            *key = rank_key(score);
            // At most one a sample, and those are counted in u32.
            *count = count.wrapping_add(u32::from(*key <= half_key));
        }
        for class in labels.of(sample) {
            half.hits[class as usize] += u32::from(keys[class as usize] <= half_key);
        }
        for _ in 0..k {
            let (class, key) = take_highest(&mut keys);
            let hit = labels.contains(sample, class);
            top.add(class, hit);
            if key <= half_key {
                both.add(class, hit);
            }
        }
    }
    let positives = labels.support();
    ByEachWay {
        at_threshold: summarise(&positives, &half),
        top_k: summarise(&positives, &top),
        top_k_at_threshold: summarise(&positives, &both),
    }
}

/// Predictions and right ones, `[classes]` each.
struct Tally {
    predictions: Vec<u32>,
    hits: Vec<u32>,
}

impl Tally {
    fn add(&mut self, class: u32, hit: bool) {
        self.predictions[class as usize] += 1;
        self.hits[class as usize] += u32::from(hit);
    }
}

/// The class of the highest score of a row and its key, of equal ones the first; it is out of the next question. Without a
/// branch that depends on the scores.
#[inline(always)]
fn take_highest(keys: &mut [u32]) -> (u32, u32) {
    /// After the key of every score.
    const GONE: u32 = u32::MAX;
    const LANES: usize = 16;
    let mut lanes = [GONE; LANES];
    let (whole, rest) = keys.as_chunks::<LANES>();
    for chunk in whole {
        for lane in 0..LANES {
            lanes[lane] = lanes[lane].min(chunk[lane]);
        }
    }
    for (lane, key) in lanes.iter_mut().zip(rest) {
        *lane = (*lane).min(*key);
    }
    let key = lanes.iter().copied().fold(GONE, u32::min);
    let class = keys.iter().position(|other| *other == key).unwrap_or(0) as u32;
    if let Some(taken) = keys.get_mut(class as usize) {
        *taken = GONE;
    }
    (class, key)
}

fn summarise(positives: &[u32], Tally { predictions, hits }: &Tally) -> MultilabelFigures {
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
