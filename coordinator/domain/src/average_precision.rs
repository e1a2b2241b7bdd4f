//! Exact average precision per class and its mean, as scikit-learn's `average_precision_score`
//! computes it: `AP = Σₖ (Rₖ − Rₖ₋₁) Pₖ` over the distinct scores from high to low, with Pₖ and Rₖ
//! the precision and recall when every sample scored at least that much is taken as positive.
//! Equal scores are one threshold, so the order of samples never matters. There is no
//! interpolation, no envelope and no epsilon.

use serde::{Deserialize, Serialize};

use crate::columns::for_each_class;
use crate::labels::Labels;
use crate::ranking::OperatingPoint;
use crate::scores::{Layout, ScoreError, ScoreMatrix};

/// What "average precision" means here, to be printed beside every figure: the literature mixes
/// three definitions under this name.
pub const DEFINITION: &str =
    "average precision: non-interpolated, equal scores are one threshold (scikit-learn)";

/// How mAP treats classes that no sample shows, to be printed beside it.
pub const MEAN_DEFINITION: &str =
    "mAP: mean over the classes with at least one positive sample; the others are named";

/// What the chance figure means, to be printed beside it.
pub const CHANCE_DEFINITION: &str = "chance mAP: what one score for all samples gives, the mean \
    over classes with a positive of positives / samples";

/// Exact mean average precision with everything needed to judge it. All figures are fractions of 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeanAveragePrecision {
    /// The mean over classes with a positive; `None` if there is no such class.
    pub map: Option<f64>,
    /// `[classes]`; `None` for a class without a positive.
    pub per_class: Vec<Option<f64>>,
    /// `[classes]`: how many samples show each class.
    pub support: Vec<u32>,
    /// The classes left out of the mean, ascending.
    pub classes_without_positive: Vec<u32>,
    /// How many samples were ranked, each once.
    pub samples: u32,
    /// What giving all samples one score reaches ([`CHANCE_DEFINITION`]); the expectation of a
    /// random ranking is slightly above it for rare classes.
    pub chance_map: Option<f64>,
}

/// Ranks every class of `scores` and averages.
///
/// Infinite scores rank first or last, as they should; -0.0 and 0.0 are equal.
///
/// # Errors
/// [`ScoreError::LabelsDiffer`] if the shapes differ; [`ScoreError::NotANumber`] naming the first
/// NaN.
pub fn mean_average_precision(
    scores: &ScoreMatrix<'_>,
    labels: &Labels,
) -> Result<MeanAveragePrecision, ScoreError> {
    scores.check(labels)?;
    let positives = labels.by_class();
    let mut per_class = Vec::with_capacity(positives.len());
    for_each_class(scores, &positives, |column| {
        per_class.push(of_points(column.points));
    });
    Ok(of_classes(per_class, &positives, scores.samples()))
}

/// The figure from that of each class and the samples that show it.
pub(crate) fn of_classes(
    per_class: Vec<Option<f64>>,
    positives: &[Vec<u32>],
    samples: u32,
) -> MeanAveragePrecision {
    // At most `samples` each, which is a u32.
    let support: Vec<u32> = positives
        .iter()
        .map(|samples| samples.len() as u32)
        .collect();
    let classes_without_positive = (0u32..)
        .zip(&support)
        .filter(|(_, n)| **n == 0)
        .map(|(class, _)| class)
        .collect();
    MeanAveragePrecision {
        map: mean(per_class.iter().copied().flatten()),
        chance_map: chance_map(&support, samples),
        per_class,
        support,
        classes_without_positive,
        samples,
    }
}

/// The average precision of one class; `None` without a positive.
///
/// # Errors
/// [`ScoreError::WrongShape`] if there is not one label per score; [`ScoreError::NotANumber`].
pub fn average_precision(scores: &[f32], positive: &[bool]) -> Result<Option<f64>, ScoreError> {
    let samples = u32::try_from(positive.len()).unwrap_or(u32::MAX);
    let matrix = ScoreMatrix::new(scores, samples, 1, Layout::ClassMajor)?;
    let mut labels = Labels::new(samples, 1);
    for (sample, _) in (0..samples)
        .zip(positive)
        .filter(|(_, positive)| **positive)
    {
        // Only a sample at or above `samples` could be refused, and the range ends there.
        let _ = labels.insert(sample, 0);
    }
    Ok(mean_average_precision(&matrix, &labels)?.map)
}

/// The mAP of giving all samples one score: the mean of positives / samples over the classes with
/// a positive, `None` without such a class.
#[must_use]
pub fn chance_map(support: &[u32], samples: u32) -> Option<f64> {
    mean(
        support
            .iter()
            .filter(|n| **n > 0)
            .map(|n| f64::from(*n) / f64::from(samples)),
    )
}

pub(crate) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// The average precision of one class from its thresholds; `None` without a positive.
pub(crate) fn of_points(points: &[OperatingPoint]) -> Option<f64> {
    let mut before = 0;
    let mut sum = 0.0;
    for point in points {
        // A threshold without a new positive adds no recall, so these are all that count.
        sum += (point.found - before) as f64 * point.precision();
        before = point.found;
    }
    (before > 0).then(|| sum / before as f64)
}

#[cfg(test)]
mod tests;
