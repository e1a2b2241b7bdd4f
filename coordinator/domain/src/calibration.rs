//! Whether probabilities mean what they say: expected calibration error and Brier score over all decisions
//! (samples × classes), each a probability `sigmoid(logit)` beside a label of 0 or 1.
//!
//! - Expected calibration error: `Σ nᵦ/n |mean probability − fraction positive|` over bins of equal width (M. P. Naeini et
//!   al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015; 15 bins as in C. Guo et al., "On
//!   Calibration of Modern Neural Networks", ICML 2017). Of the probability of the label, not of the predicted side. Where
//!   most labels are absent most decisions lie in the lowest bin and dominate it.
//! - Brier score: `mean (probability − label)²` (G. W. Brier, 1950).

use serde::{Deserialize, Serialize};

use crate::labels::Labels;
use crate::scores::{Layout, ScoreError, ScoreMatrix};

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

/// `sigmoid(logit)` in float64.
#[must_use]
pub fn probability(logit: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(logit)).exp())
}

/// Computes both figures and the bins.
///
/// # Errors
/// [`ScoreError::LabelsDiffer`] if the shapes differ; [`ScoreError::NotANumber`].
pub fn calibration(scores: &ScoreMatrix<'_>, labels: &Labels) -> Result<Calibration, ScoreError> {
    scores.check(labels)?;
    // Per bin: decisions, positive ones, sum of probabilities.
    let mut sums = [(0u64, 0u64, 0.0f64); BINS];
    let mut squares = 0.0;
    let width = match scores.layout() {
        Layout::SampleMajor => scores.classes(),
        Layout::ClassMajor => scores.samples(),
    };
    for (major, line) in (0u32..).zip(scores.as_slice().chunks((width as usize).max(1))) {
        for (minor, &logit) in (0u32..).zip(line) {
            let positive = match scores.layout() {
                Layout::SampleMajor => labels.contains(major, minor),
                Layout::ClassMajor => labels.contains(minor, major),
            };
            let p = probability(logit);
            let label = f64::from(u8::from(positive));
            squares += (p - label) * (p - label);
            // From 0 to BINS.
            let upper = (p * BINS as f64).ceil() as usize;
            let (decisions, positives, sum) = &mut sums[upper.saturating_sub(1).min(BINS - 1)];
            *decisions += 1;
            *positives += u64::from(positive);
            *sum += p;
        }
    }
    let all: u64 = sums.iter().map(|(decisions, _, _)| decisions).sum();
    let over_all = |sum: f64| (all > 0).then(|| sum / all as f64);
    let gap = |(_, positives, sum): &(u64, u64, f64)| (sum - *positives as f64).abs();
    Ok(Calibration {
        ece: over_all(sums.iter().map(gap).sum()),
        brier: over_all(squares),
        bins: sums
            .iter()
            .map(|&(decisions, positives, sum)| Bin {
                decisions,
                mean_probability: sum / decisions.max(1) as f64,
                fraction_positive: positives as f64 / decisions.max(1) as f64,
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
