//! The other figures that papers print under the name of average precision. None is this system's own
//! ([`crate::average_precision`]); they are computed for comparison, each under its name.
//!
//! - **eleven-point**: `1/11 Σ max{P(R') : R' ≥ t}` over the recalls t = 0, 0.1, …, 1. M. Everingham et al., "The PASCAL
//!   Visual Object Classes (VOC) Challenge", IJCV 2010, the challenge's measure until 2009. Recalls are compared as
//!   fractions here; the code that is usually copied compares with multiples of 0.1 in floating point and so misses
//!   recalls of exactly 0.3, 0.6 and 0.7.
//! - **every-point**: the area under the same envelope, `Σ (Rₖ − Rₖ₋₁) max{P(R') : R' ≥ Rₖ}`. The VOC development kits
//!   since 2010.
//! - **epsilon**: `Σ Pᵢ / (positives + 1e-8)` over the positives one by one, equal scores in whatever order the sort leaves
//!   them; a class without a positive counts as 0 in the mean. `average_precision` in `src/helper_functions/` of
//!   Alibaba-MIIL/ASL (T. Ridnik et al., ICCV 2021), copied widely. Equal scores are taken here by descending sample, which
//!   is what a stable sort turned round gives. ML-GCN (Z.-M. Chen et al., CVPR 2019, `util.py`) has the same sum without
//!   the 1e-8 and has no figure for a class without a positive.

use serde::{Deserialize, Serialize};

use crate::average_precision::mean;
use crate::columns::{Column, for_each_class};
use crate::labels::Labels;
use crate::ranking::{OperatingPoint, Ranking};
use crate::scores::{ScoreError, ScoreMatrix};

/// What the three are, to be printed beside them.
pub const DEFINITION: &str = "eleven_point: interpolated at recalls 0, 0.1, ..., 1 (PASCAL VOC until 2009); every_point: \
     interpolated at every recall (PASCAL VOC since 2010); epsilon: positives one by one over positives + 1e-8, classes without \
     a positive count as 0 (ASL's code; ML-GCN's but for the 1e-8). For comparison with papers; `map` is none of them";

/// Added to the number of positives in the epsilon definition.
const EPSILON: f64 = 1e-8;

/// mAP by one definition. Fractions of 1.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Variant {
    /// The mean over the classes that the definition counts.
    pub map: Option<f64>,
    /// `[classes]`; `None` where the definition has no figure.
    pub per_class: Vec<Option<f64>>,
}

/// mAP by the definitions that are not this system's own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct OtherDefinitions {
    /// Interpolated at eleven recalls.
    pub eleven_point: Variant,
    /// Interpolated at every recall.
    pub every_point: Variant,
    /// The sum over positives one by one, divided by their number and 1e-8.
    pub epsilon: Variant,
}

/// Computes all three.
///
/// # Errors
/// [`ScoreError::LabelsDiffer`] if the shapes differ; [`ScoreError::NotANumber`].
pub fn other_definitions(
    scores: &ScoreMatrix<'_>,
    labels: &Labels,
) -> Result<OtherDefinitions, ScoreError> {
    scores.check(labels)?;
    let mut all = OtherDefinitions::default();
    for_each_class(scores, &labels.by_class(), |column| all.push(column));
    all.average();
    Ok(all)
}

impl OtherDefinitions {
    /// Adds the class of `column`.
    pub(crate) fn push(&mut self, column: Column<'_>) {
        let positives = column.positives.len() as u64;
        let envelope = envelope(column.points);
        let shown = |figure: f64| (positives > 0).then_some(figure);
        let eleven = eleven_point(column.points, &envelope, positives);
        self.eleven_point.per_class.push(shown(eleven));
        let every = every_point(column.points, &envelope, positives);
        self.every_point.per_class.push(shown(every));
        self.epsilon.per_class.push(Some(epsilon(column)));
    }

    /// Makes the means, when all classes are there.
    pub(crate) fn average(&mut self) {
        for variant in [
            &mut self.eleven_point,
            &mut self.every_point,
            &mut self.epsilon,
        ] {
            variant.map = mean(variant.per_class.iter().copied().flatten());
        }
    }
}

/// The highest precision at this recall or above: `[points]`.
fn envelope(points: &[OperatingPoint]) -> Vec<f64> {
    let mut envelope: Vec<f64> = points.iter().map(OperatingPoint::precision).collect();
    for at in (1..envelope.len()).rev() {
        envelope[at - 1] = envelope[at - 1].max(envelope[at]);
    }
    envelope
}

fn eleven_point(points: &[OperatingPoint], envelope: &[f64], positives: u64) -> f64 {
    let at_recall = |tenths: u64| {
        let reached = points.partition_point(|point| 10 * point.found < tenths * positives);
        envelope.get(reached).copied().unwrap_or(0.0)
    };
    (0..=10).map(at_recall).sum::<f64>() / 11.0
}

fn every_point(points: &[OperatingPoint], envelope: &[f64], positives: u64) -> f64 {
    let mut before = 0;
    let mut sum = 0.0;
    for (point, highest) in points.iter().zip(envelope) {
        sum += (point.found - before) as f64 * highest;
        before = point.found;
    }
    sum / positives as f64
}

/// The positives one by one. Where one has the score of a negative, the samples' own order decides.
fn epsilon(column: Column<'_>) -> f64 {
    let mixed = mixed(column);
    let members: u64 = mixed.iter().map(|tie| tie.members).sum();
    if members > column.of_samples.len() as u64 / 8 {
        let ranking = Ranking::of_class(column.of_samples, column.shown);
        return one_by_one(ranking.in_order());
    }
    let members = members_of(column, &mixed);
    let mut ties = members.chunk_by(|a, b| a.tie == b.tie).peekable();
    let (mut found, mut sum) = (0, 0.0);
    for (at, (point, &above)) in column.points.iter().zip(column.above).enumerate() {
        let mut add = |taken: u64| {
            found += 1;
            sum += found as f64 / taken as f64;
        };
        match ties.next_if(|tie| tie[0].tie == at) {
            None => (above + 1..=point.taken).for_each(add),
            Some(tie) => (above + 1..)
                .zip(tie.iter().rev())
                .filter(|(_, member)| member.positive)
                .for_each(|(taken, _)| add(taken)),
        }
    }
    sum / (found as f64 + EPSILON)
}

/// Positives and negatives of one score.
struct Mixed {
    /// Which of the column's points it is.
    tie: usize,
    key: u32,
    members: u64,
}

fn mixed(column: Column<'_>) -> Vec<Mixed> {
    let mut found = 0;
    let mut mixed = Vec::new();
    for (tie, (point, &above)) in column.points.iter().zip(column.above).enumerate() {
        let members = point.taken - above;
        if members > point.found - found {
            // The last of its positives: as many were found by then.
            let key = column.positives[point.found as usize - 1];
            mixed.push(Mixed { tie, key, members });
        }
        found = point.found;
    }
    mixed
}

/// A sample in a mixed tie.
struct Member {
    tie: usize,
    positive: bool,
}

/// The members of the ties, tie by tie, those of each by ascending sample.
fn members_of(column: Column<'_>, mixed: &[Mixed]) -> Vec<Member> {
    // Nearly every sample is in none: a bit for each hash of a key says so.
    const WORDS: usize = 1 << 10;
    let bit = |key: u32| {
        let hash = key.wrapping_mul(0x9E37_79B1) >> 16;
        (hash as usize / 64, 1u64 << (hash % 64))
    };
    let mut members = Vec::new();
    if mixed.is_empty() {
        return members;
    }
    let mut filter = [0u64; WORDS];
    for tie in mixed {
        let (word, bit) = bit(tie.key);
        filter[word] |= bit;
    }
    let mut shown = column.shown.iter().peekable();
    for (sample, &key) in (0u32..).zip(column.of_samples) {
        let (word, bit) = bit(key);
        if filter[word] & bit == 0 {
            continue;
        }
        if let Ok(at) = mixed.binary_search_by_key(&key, |tie| tie.key) {
            while shown.next_if(|before| **before < sample).is_some() {}
            let positive = shown.peek().is_some_and(|other| **other == sample);
            members.push(Member {
                tie: mixed[at].tie,
                positive,
            });
        }
    }
    // Stable: samples stay in their order.
    members.sort_by_key(|member| member.tie);
    members
}

/// From whether each sample is positive, from the highest score to the lowest.
fn one_by_one(in_order: impl Iterator<Item = bool>) -> f64 {
    let (mut found, mut sum) = (0u64, 0.0);
    for (taken, positive) in (1u64..).zip(in_order) {
        if positive {
            found += 1;
            sum += found as f64 / taken as f64;
        }
    }
    sum / (found as f64 + EPSILON)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::average_precision::average_precision;
    use crate::scores::Layout;

    fn of_one_class(scores: &[f32], positive: &[u32]) -> OtherDefinitions {
        let samples = u32::try_from(scores.len()).unwrap();
        let mut labels = Labels::new(samples, 1);
        for &sample in positive {
            labels.insert(sample, 0).unwrap();
        }
        let matrix = ScoreMatrix::new(scores, samples, 1, Layout::SampleMajor).unwrap();
        other_definitions(&matrix, &labels).unwrap()
    }

    #[test]
    fn each_definition_gives_its_own_number_on_the_same_scores() {
        // Positives at the ranks 2, 3, 6 and 8 of eight: precision 1/2, 2/3, 1/2, 1/2.
        let scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2];
        let all = of_one_class(&scores, &[1, 2, 5, 7]);

        // Then recalls up to 0.5 see 2/3, those beyond 1/2
        let close = |found: &Variant, expected: f64| {
            let found = found.map.unwrap();
            assert!(
                (found - expected).abs() < 1e-15,
                "{found}, expected {expected}"
            );
        };
        close(&all.eleven_point, (6.0 * (2.0 / 3.0) + 5.0 * 0.5) / 11.0);
        close(&all.every_point, (2.0 * (2.0 / 3.0) + 2.0 * 0.5) / 4.0);
        close(&all.epsilon, (13.0 / 6.0) / (4.0 + 1e-8));
    }

    #[test]
    fn a_recall_of_exactly_three_tenths_counts() {
        // Three of ten positives come first, the others after forty negatives.
        let scores: Vec<f32> = (0..50u8).map(|n| -f32::from(n)).collect();
        let positive: Vec<u32> = (0..3).chain(43..50).collect();
        let found = of_one_class(&scores, &positive).eleven_point.map.unwrap();
        // Recalls 0, 0.1, 0.2 and 0.3 at precision 1; the rest at 10/50.
        assert!((found - (4.0 + 7.0 * 0.2) / 11.0).abs() < 1e-15, "{found}");
    }

    #[test]
    fn equal_scores_are_one_threshold_unless_the_definition_takes_them_one_by_one() {
        let scores = [1.0, 1.0, 0.5, 0.0];
        let all = of_one_class(&scores, &[0, 3]);
        let own = average_precision(&scores, &[true, false, false, true])
            .unwrap()
            .unwrap();
        // Precision 1/2 at both recalls.
        assert_eq!(own, 0.5);
        assert_eq!(all.every_point.map, Some(0.5));
        // The later sample first: the positive at rank 2.
        assert_eq!(all.epsilon.map, Some(1.0 / (2.0 + 1e-8)));
    }

    #[test]
    fn a_class_without_a_positive_counts_as_zero_by_epsilon_alone() {
        let labels = Labels::from_lists(2, &[vec![0], vec![]]).unwrap();
        let scores = [1.0, 0.0, 0.0, 1.0];
        let matrix = ScoreMatrix::new(&scores, 2, 2, Layout::SampleMajor).unwrap();
        let all = other_definitions(&matrix, &labels).unwrap();
        assert_eq!(all.every_point.per_class, [Some(1.0), None]);
        assert_eq!(all.every_point.map, Some(1.0));
        assert_eq!(all.epsilon.per_class[1], Some(0.0));
        assert!((all.epsilon.map.unwrap() - 0.5).abs() < 1e-8);
    }
}
