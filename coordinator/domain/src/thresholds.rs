//! The threshold that maximises F1: one for all decisions, and one for each class.
//!
//! It is chosen on the split it is reported for, so its F1 is a selected figure: what another split gives with the same
//! threshold is lower on average, the more so for rare classes. Reported as such, never beside figures at 0.5 as if it
//! were of their kind.

use serde::{Deserialize, Serialize};

use crate::average_precision::mean;
use crate::calibration::probability;
use crate::labels::Labels;
use crate::ranking::{OperatingPoint, Ranking, points_of_all};
use crate::scores::{ScoreError, ScoreMatrix};

/// What the figures mean, to be printed beside them.
pub const DEFINITION: &str = "the threshold of highest F1, of equals the highest; a label is predicted at a score of at \
     least that. Chosen on the split it is reported for: a selected figure";

/// A threshold and what it gives.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// As a score (logit); `None` where it is infinite.
    pub logit: Option<f32>,
    /// As a probability.
    pub probability: f64,
    /// F1 at it, a fraction of 1.
    pub f1: f64,
}

/// The best thresholds of one evaluation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BestThresholds {
    /// One threshold for all decisions: the highest OF1. `None` without any positive.
    pub overall: Option<Threshold>,
    /// `[classes]`: one for each; `None` for a class without a positive.
    pub per_class: Vec<Option<Threshold>>,
    /// The mean of the classes' F1 at their own thresholds, over classes with a positive.
    pub mean_class_f1: Option<f64>,
}

/// Finds them.
///
/// # Errors
/// [`ScoreError::LabelsDiffer`] if the shapes differ; [`ScoreError::NotANumber`].
pub fn best_thresholds(
    scores: &ScoreMatrix<'_>,
    labels: &Labels,
) -> Result<BestThresholds, ScoreError> {
    scores.check(labels)?;
    let all = points_of_all(scores, labels);
    let rankings = (0..scores.classes()).map(|class| Ranking::new(scores, labels, class));
    let per_class: Vec<_> = rankings
        .map(|ranking| best(&ranking.points(), ranking.positives()))
        .collect();
    Ok(BestThresholds {
        overall: best(&all, all.last().map_or(0, |point| point.found)),
        mean_class_f1: mean(per_class.iter().flatten().map(|best| best.f1)),
        per_class,
    })
}

/// The best of the thresholds of positives: any other takes more samples and finds no more.
fn best(points: &[OperatingPoint], positives: u64) -> Option<Threshold> {
    let mut best: Option<(f64, f32)> = None;
    for point in points {
        let f1 = point.f1(positives);
        if best.is_none_or(|(highest, _)| f1 > highest) {
            best = Some((f1, point.score));
        }
    }
    best.map(|(f1, logit)| Threshold {
        logit: logit.is_finite().then_some(logit),
        probability: probability(logit),
        f1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scores::Layout;

    #[test]
    fn the_best_threshold_is_a_score_of_a_positive_and_of_equals_the_highest() {
        // Class 0: positives at 2 and -1, a negative between. Class 1: shown by nobody.
        let labels = Labels::from_lists(2, &[vec![0], vec![], vec![0], vec![]]).unwrap();
        let scores = [2.0, 5.0, 0.0, -9.0, -1.0, -9.0, -2.0, -9.0];
        let matrix = ScoreMatrix::new(&scores, 4, 2, Layout::SampleMajor).unwrap();
        let found = best_thresholds(&matrix, &labels).unwrap();

        // At 2: F1 = 2·1/(1+2); at -1: 2·2/(3+2), the higher.
        let class = found.per_class[0].unwrap();
        assert_eq!((class.logit, class.f1), (Some(-1.0), 0.8));
        assert!((class.probability - 1.0 / (1.0 + 1f64.exp())).abs() < 1e-15);
        assert_eq!(found.per_class[1], None);
        assert_eq!(found.mean_class_f1, Some(0.8));
        // Over all decisions the false 5.0 counts too: 2·1/(2+2) at 2, 2·2/(4+2) at -1.
        let overall = found.overall.unwrap();
        assert_eq!((overall.logit, overall.f1), (Some(-1.0), 4.0 / 6.0));
    }

    #[test]
    fn without_a_positive_there_is_no_threshold() {
        let labels = Labels::new(2, 1);
        let matrix = ScoreMatrix::new(&[0.0, 1.0], 2, 1, Layout::SampleMajor).unwrap();
        let found = best_thresholds(&matrix, &labels).unwrap();
        assert_eq!((found.overall, found.mean_class_f1), (None, None));
        assert_eq!(found.per_class, [None]);
    }
}
