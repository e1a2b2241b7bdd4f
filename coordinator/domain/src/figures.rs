//! All figures of one evaluation at once: each class is ranked once, and every figure reads the same ranking. Those that
//! need none are computed meanwhile, on another thread where there is one; that changes no bit.

use std::thread;

use crate::average_precision::{self, MeanAveragePrecision};
use crate::calibration::{Calibration, Sums};
use crate::columns::for_each_class;
use crate::labels::Labels;
use crate::multilabel::{self, ByEachWay};
use crate::other_definitions::OtherDefinitions;
use crate::scores::{ScoreError, ScoreMatrix};
use crate::thresholds::{self, BestThresholds};

/// What is kept of an evaluation. Each figure is what the function of its own module gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// Per-class average precision and its mean.
    pub average_precision: MeanAveragePrecision,
    /// Precision, recall and F1 by each way of predicting labels.
    pub multilabel: ByEachWay,
    /// Whether probabilities mean what they say.
    pub calibration: Calibration,
    /// The thresholds of highest F1.
    pub best_thresholds: BestThresholds,
    /// mAP by definitions that are not ours.
    pub other_definitions: OtherDefinitions,
}

/// Computes them; labels are predicted for the `k` highest classes of a sample where a way says so.
///
/// # Errors
/// [`ScoreError::LabelsDiffer`] if the shapes differ; [`ScoreError::NotANumber`] naming the first NaN.
pub fn figures(scores: &ScoreMatrix<'_>, labels: &Labels, k: u32) -> Result<Figures, ScoreError> {
    scores.check(labels)?;
    let positives = labels.by_class();
    let mut per_class = Vec::with_capacity(positives.len());
    let mut sums = Sums::new();
    let mut best_thresholds = BestThresholds::default();
    let mut other_definitions = OtherDefinitions::default();
    let by_rank = || {
        for_each_class(scores, &positives, |column| {
            per_class.push(average_precision::of_points(column.points));
            sums.push(column);
            best_thresholds.push(column);
            other_definitions.push(column);
        });
    };
    let without_rank = || {
        let overall = thresholds::overall(scores, labels);
        (overall, multilabel::count(scores, labels, k))
    };
    let (overall, multilabel) = beside(without_rank, by_rank);
    best_thresholds.overall = overall;
    best_thresholds.average();
    other_definitions.average();
    Ok(Figures {
        average_precision: average_precision::of_classes(per_class, &positives, scores.samples()),
        multilabel,
        calibration: sums.finish(),
        best_thresholds,
        other_definitions,
    })
}

/// Does both, `other` on a thread of its own if the system gives one, and returns what that one gives.
fn beside<T: Send>(other: impl Fn() -> T + Sync, this: impl FnOnce()) -> T {
    thread::scope(|scope| {
        let started = thread::Builder::new().spawn_scoped(scope, &other);
        this();
        match started {
            Ok(started) => started
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(_) => other(),
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::average_precision::mean_average_precision;
    use crate::calibration::calibration;
    use crate::multilabel::by_each_way;
    use crate::other_definitions::other_definitions;
    use crate::ranking::points_of_all;
    use crate::scores::Layout;
    use crate::thresholds::best_thresholds;

    const CLASSES: u32 = 19;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn together_they_are_what_each_is_alone(
            rows in vec((vec(-9i8..9, CLASSES as usize), vec(0..CLASSES, 0..4)), 1..200),
            step in prop::sample::select(vec![1.0f32, 0.3, 1e-3, 1e30, 1e-44]),
            k in 0u32..12,
        ) {
            let scores: Vec<f32> =
                rows.iter().flat_map(|(scores, _)| scores).map(|n| f32::from(*n) * step).collect();
            let lists: Vec<Vec<u32>> = rows.into_iter().map(|(_, classes)| classes).collect();
            let labels = Labels::from_lists(CLASSES, &lists).unwrap();
            let samples = labels.samples();
            let matrix = ScoreMatrix::new(&scores, samples, CLASSES, Layout::SampleMajor).unwrap();

            let all = figures(&matrix, &labels, k).unwrap();
            prop_assert_eq!(&all.average_precision, &mean_average_precision(&matrix, &labels).unwrap());
            prop_assert_eq!(&all.multilabel, &by_each_way(&matrix, &labels, k).unwrap());
            prop_assert_eq!(&all.calibration, &calibration(&matrix, &labels).unwrap());
            prop_assert_eq!(&all.best_thresholds, &best_thresholds(&matrix, &labels).unwrap());
            prop_assert_eq!(&all.other_definitions, &other_definitions(&matrix, &labels).unwrap());

            // The best of all decisions is the first of the best among all thresholds, one by one
            let points = points_of_all(&matrix, &labels);
            let shown = points.last().map_or(0, |point| point.found);
            let highest = points.iter().map(|point| point.f1(shown)).fold(0.0, f64::max);
            let first = points.iter().find(|point| point.f1(shown) == highest);
            let overall = all.best_thresholds.overall;
            prop_assert_eq!(overall.map(|best| best.f1), first.map(|point| point.f1(shown)));
            prop_assert_eq!(
                overall.and_then(|best| best.logit),
                first.map(|point| point.score)
            );
        }
    }
}
