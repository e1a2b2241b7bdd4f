//! Whether probabilities mean what they say: expected calibration error and Brier score over all decisions
//! (samples × classes), each a probability `sigmoid(logit)` beside a label of 0 or 1.
//!
//! - Expected calibration error: `Σ nᵦ/n |mean probability − fraction positive|` over bins of equal width (M. P. Naeini et
//!   al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015; 15 bins as in C. Guo et al., "On
//!   Calibration of Modern Neural Networks", ICML 2017). Of the probability of the label, not of the predicted side. Where
//!   most labels are absent most decisions lie in the lowest bin and dominate it.
//! - Brier score: `mean (probability − label)²` (G. W. Brier, 1950).

use serde::{Deserialize, Serialize};

use crate::columns::{Column, for_each_class, rank_key, score_of};
use crate::labels::Labels;
use crate::scores::{ScoreError, ScoreMatrix};
use crate::sigmoid::{self, probability};

/// Bins of equal width; each holds its upper edge, the first also 0.
pub const BINS: usize = 15;

/// What the figures mean, to be printed beside them.
pub const DEFINITION: &str = "over all decisions (images x classes), p = sigmoid(logit); ece: expected calibration error of p \
     in 15 bins of equal width; brier: mean of (p - label)^2";

/// One bin of the reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Bin {
    /// Decisions in it.
    pub decisions: u64,
    /// Their mean probability; 0 in an empty bin.
    pub mean_probability: f64,
    /// The fraction of them whose label is there; 0 in an empty bin.
    pub fraction_positive: f64,
}

/// How well calibrated the probabilities of one evaluation are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Expected calibration error; `None` without any decision.
    pub ece: Option<f64>,
    /// Brier score; `None` without any decision.
    pub brier: Option<f64>,
    /// From low to high probability.
    pub bins: Vec<Bin>,
}

/// Computes both figures and the bins.
///
/// # Errors
/// [`ScoreError::LabelsDiffer`] if the shapes differ; [`ScoreError::NotANumber`].
pub fn calibration(scores: &ScoreMatrix<'_>, labels: &Labels) -> Result<Calibration, ScoreError> {
    scores.check(labels)?;
    let mut sums = Sums::new();
    for_each_class(scores, &labels.by_class(), |column| sums.push(column));
    Ok(sums.finish())
}

/// What the figures are made of, class by class. A class is ranked, so each bin is a stretch of it.
pub(crate) struct Sums {
    /// The key at which each bin begins, from the highest probability down.
    edges: [u32; BINS],
    /// Per bin, from low to high probability.
    bins: [Bin; BINS],
    /// `Σ p²` over all decisions.
    squares: f64,
    /// `Σ (1 - 2p)` over the positive ones: with the above `Σ (p - label)²`.
    positives: f64,
}

impl Sums {
    pub(crate) fn new() -> Self {
        let edge = |from_top: usize| first_key(|p| bin_of(p) + from_top < BINS);
        Self {
            edges: std::array::from_fn(edge),
            bins: [Bin::default(); BINS],
            squares: 0.0,
            positives: 0.0,
        }
    }

    /// Adds the class of `column`.
    pub(crate) fn push(&mut self, column: Column<'_>) {
        let of_positives = sigmoid::sums(column.positives);
        self.positives += column.positives.len() as f64 - 2.0 * of_positives.probabilities;
        let (mut keys, mut positives) = (column.keys, column.positives);
        // From the lowest probability, which is at the end.
        for (bin, edge) in self.bins.iter_mut().zip(self.edges.iter().rev()) {
            let below = |keys: &[u32]| keys.partition_point(|key| key < edge);
            let (higher, its) = keys.split_at(below(keys));
            let (higher_positives, its_positives) = positives.split_at(below(positives));
            let sums = sigmoid::sums(its);
            bin.decisions += its.len() as u64;
            // Sums until the end, when they are divided.
            bin.mean_probability += sums.probabilities;
            bin.fraction_positive += its_positives.len() as f64;
            self.squares += sums.squares;
            (keys, positives) = (higher, higher_positives);
        }
    }

    /// The figures, when all classes are there.
    pub(crate) fn finish(self) -> Calibration {
        let all: u64 = self.bins.iter().map(|bin| bin.decisions).sum();
        let over_all = |sum: f64| (all > 0).then(|| sum / all as f64);
        let gap = |bin: &Bin| (bin.mean_probability - bin.fraction_positive).abs();
        Calibration {
            ece: over_all(self.bins.iter().map(gap).sum()),
            // Rounding may leave a little less than nothing.
            brier: over_all((self.squares + self.positives).max(0.0)),
            bins: self
                .bins
                .iter()
                .map(|sums| Bin {
                    decisions: sums.decisions,
                    mean_probability: sums.mean_probability / sums.decisions.max(1) as f64,
                    fraction_positive: sums.fraction_positive / sums.decisions.max(1) as f64,
                })
                .collect(),
        }
    }
}

/// Which bin holds a probability, from low to high.
fn bin_of(probability: f64) -> usize {
    // From 0 to BINS.
    let upper = (probability * BINS as f64).ceil() as usize;
    upper.saturating_sub(1).min(BINS - 1)
}

/// The first key, from the highest score down, whose probability is as `low` has it; past the last if there is none.
fn first_key(low: impl Fn(f64) -> bool) -> u32 {
    let (mut from, mut to) = (rank_key(f32::INFINITY), rank_key(f32::NEG_INFINITY) + 1);
    while from < to {
        let middle = from + (to - from) / 2;
        if low(probability(score_of(middle))) {
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    from
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scores::Layout;

    #[test]
    fn probabilities_that_hold_have_no_error_and_those_that_do_not_have_theirs() {
        // Half of the samples scored one half are positive: calibrated, and no better than a guess
        let labels = Labels::from_lists(1, &[vec![0], vec![]]).unwrap();
        let matrix = ScoreMatrix::new(&[0.0, 0.0], 2, 1, Layout::SampleMajor).unwrap();
        let found = calibration(&matrix, &labels).unwrap();
        assert_eq!((found.ece, found.brier), (Some(0.0), Some(0.25)));
        assert_eq!(found.bins[7].decisions, 2);

        // Certain, and wrong half of the time
        let matrix = ScoreMatrix::new(&[100.0, 100.0], 2, 1, Layout::SampleMajor).unwrap();
        let found = calibration(&matrix, &labels).unwrap();
        assert_eq!((found.ece, found.brier), (Some(0.5), Some(0.5)));
        assert_eq!(found.bins[BINS - 1].fraction_positive, 0.5);
    }

    #[test]
    fn infinite_scores_are_probabilities_of_zero_and_one() {
        let labels = Labels::from_lists(1, &[vec![0], vec![]]).unwrap();
        let scores = [f32::INFINITY, f32::NEG_INFINITY];
        let matrix = ScoreMatrix::new(&scores, 2, 1, Layout::ClassMajor).unwrap();
        let found = calibration(&matrix, &labels).unwrap();
        assert_eq!((found.ece, found.brier), (Some(0.0), Some(0.0)));
    }

    #[test]
    fn without_any_decision_there_is_no_figure() {
        let matrix = ScoreMatrix::new(&[], 0, 3, Layout::SampleMajor).unwrap();
        let found = calibration(&matrix, &Labels::new(0, 3)).unwrap();
        assert_eq!((found.ece, found.brier), (None, None));
    }
}
