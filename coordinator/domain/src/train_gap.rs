//! Whether training pictures, scored as validation's are, do worse than those: a true defect (labels and pictures that do
//! not belong together, running statistics that lag, a transform that differs), unless it is noise.
//!
//! Noise is what another draw of pictures would change: both sides are drawn again with replacement from their own
//! pictures, independently (the bootstrap: Efron 1979), and the difference of their mAPs is taken each time, over the
//! classes that both sides show. The interval is the middle 95 % of these differences.

use serde::{Deserialize, Serialize};

use crate::labels::Labels;
use crate::scores::{Layout, ScoreError, ScoreMatrix};

/// Draws of the bootstrap: the ends of the interval are then its fifth smallest and largest.
const DRAWS: usize = 200;

/// Clean training mAP minus validation mAP, over the classes that both show.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// The difference, as a fraction of 1.
    pub difference: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Gap {
    /// Whether training pictures do worse than validation's by more than noise.
    #[must_use]
    pub fn is_a_defect(&self) -> bool {
        self.high < 0.0
    }

    /// What people are told of a defect.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "clean training mAP is {:.1} points below validation mAP (95 % interval {:.1} to {:.1}): more than noise. \
             Training pictures that are scored as validation's are should do better; look whether file names and labels \
             of the training split belong together, and whether both splits are of one kind",
            -100.0 * self.difference,
            -100.0 * self.high,
            -100.0 * self.low
        )
    }
}

/// Compares two sets of scores; `None` where no class is shown by both. Takes DRAWS times the time of ranking both.
///
/// # Errors
/// [`ScoreError`] when shapes differ or a score is no number.
pub fn gap(
    train: (&ScoreMatrix<'_>, &Labels),
    val: (&ScoreMatrix<'_>, &Labels),
    seed: u64,
) -> Result<Option<Gap>, ScoreError> {
    let (train, val) = (Ranked::new(train.0, train.1)?, Ranked::new(val.0, val.1)?);
    let difference = |train_counts: &[u32], val_counts: &[u32]| {
        let pairs = train.classes.iter().zip(&val.classes).filter_map(|(a, b)| {
            Some(a.average_precision(train_counts)? - b.average_precision(val_counts)?)
        });
        let (sum, count) = pairs.fold((0.0, 0u32), |(sum, count), d| (sum + d, count + 1));
        (count > 0).then(|| sum / f64::from(count))
    };
    let once = |ranked: &Ranked| vec![1; ranked.samples];
    let Some(observed) = difference(&once(&train), &once(&val)) else {
        return Ok(None);
    };
    let mut random = Random(seed);
    let mut drawn: Vec<f64> = (0..DRAWS)
        .filter_map(|_| {
            let (a, b) = (random.resample(train.samples), random.resample(val.samples));
            difference(&a, &b)
        })
        .collect();
    drawn.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (share * drawn.len() as f64) as usize;
        drawn.get(index.min(drawn.len().saturating_sub(1))).copied()
    };
    Ok(Some(Gap {
        difference: observed,
        low: at(0.025).unwrap_or(observed),
        high: at(0.975).unwrap_or(observed),
    }))
}

/// The samples of every class, best first.
struct Ranked {
    samples: usize,
    classes: Vec<Ranking>,
}

struct Ranking {
    /// Sample ids in groups of equal scores, from high to low: (sample, is positive, ends its group).
    order: Vec<(u32, bool, bool)>,
}

impl Ranked {
    fn new(scores: &ScoreMatrix<'_>, labels: &Labels) -> Result<Self, ScoreError> {
        scores.check(labels)?;
        let (samples, classes) = (scores.samples() as usize, scores.classes() as usize);
        let at = |sample: usize, class: usize| match scores.layout() {
            Layout::SampleMajor => scores.as_slice()[sample * classes + class],
            Layout::ClassMajor => scores.as_slice()[class * samples + sample],
        };
        let ranking = |(class, positives): (usize, Vec<u32>)| {
            let mut shown = vec![false; samples];
            positives
                .iter()
                .for_each(|&sample| shown[sample as usize] = true);
            let mut sorted: Vec<usize> = (0..samples).collect();
            sorted.sort_by(|&a, &b| at(b, class).total_cmp(&at(a, class)));
            let last_of_group =
                |i: usize| i + 1 == samples || at(sorted[i], class) != at(sorted[i + 1], class);
            let order = (0..samples)
                .map(|i| (sorted[i] as u32, shown[sorted[i]], last_of_group(i)))
                .collect();
            Ranking { order }
        };
        let classes = labels.by_class().into_iter().enumerate().map(ranking);
        Ok(Self {
            samples,
            classes: classes.collect(),
        })
    }
}

impl Ranking {
    /// With each sample counted so often; `None` without a positive.
    fn average_precision(&self, counts: &[u32]) -> Option<f64> {
        let (mut taken, mut found, mut fresh, mut sum) = (0u64, 0u64, 0u64, 0.0);
        for &(sample, positive, ends) in &self.order {
            let count = u64::from(counts[sample as usize]);
            taken += count;
            fresh += if positive { count } else { 0 };
            if ends && fresh > 0 {
                found += fresh;
                sum += fresh as f64 * (found as f64 / taken as f64);
                fresh = 0;
            }
        }
        (found > 0).then(|| sum / found as f64)
    }
}

/// SplitMix64, as in [`crate::permutation`].
struct Random(u64);

impl Random {
    fn resample(&mut self, samples: usize) -> Vec<u32> {
        let mut counts = vec![0; samples];
        for _ in 0..samples {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            let word = z ^ (z >> 31);
            let pick = (u128::from(word) * samples as u128) >> 64;
            counts[pick as usize] += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::average_precision::mean_average_precision;

    /// Scores and labels of one class: `noise` of 0 ranks every positive first.
    fn side(samples: u32, noise: f32, seed: u64) -> (Vec<f32>, Labels) {
        let mut random = Random(seed);
        let mut labels = Labels::new(samples, 1);
        let draws = random.resample(samples as usize * 4);
        let scores = (0..samples)
            .map(|sample| {
                let positive = sample % 4 == 0;
                if positive {
                    labels.insert(sample, 0).unwrap();
                }
                let wobble = draws[sample as usize] as f32 + sample as f32 * 1e-3 % 0.9;
                f32::from(u8::from(positive)) + noise * wobble
            })
            .collect();
        (scores, labels)
    }

    fn gap_of(train: &(Vec<f32>, Labels), val: &(Vec<f32>, Labels)) -> Gap {
        let matrix = |side: &(Vec<f32>, Labels)| {
            ScoreMatrix::new(&side.0, side.1.samples(), 1, Layout::SampleMajor)
                .unwrap()
                .as_slice()
                .to_vec()
        };
        let (a, b) = (matrix(train), matrix(val));
        let a = ScoreMatrix::new(&a, train.1.samples(), 1, Layout::SampleMajor).unwrap();
        let b = ScoreMatrix::new(&b, val.1.samples(), 1, Layout::SampleMajor).unwrap();
        let found = gap((&a, &train.1), (&b, &val.1), 7).unwrap().unwrap();
        // The observed difference is that of the exact figures.
        let map = |m: &ScoreMatrix<'_>, l: &Labels| mean_average_precision(m, l).unwrap().map;
        let exact = map(&a, &train.1).unwrap() - map(&b, &val.1).unwrap();
        assert!((found.difference - exact).abs() < 1e-12);
        assert!(found.low <= found.high);
        found
    }

    #[test]
    fn the_same_quality_on_both_sides_is_no_defect() {
        for seed in 0..20 {
            let found = gap_of(&side(200, 0.7, seed), &side(300, 0.7, 100 + seed));
            assert!(!found.is_a_defect() || found.difference < -0.1, "{found:?}");
        }
    }

    #[test]
    fn training_scores_without_meaning_are_a_defect_and_those_of_validation_are_none() {
        let (good, bad) = (side(300, 0.1, 1), side(300, 50.0, 2));
        let found = gap_of(&bad, &good);
        assert!(found.is_a_defect(), "{found:?}");
        assert!(found.text().contains("below validation mAP"));
        assert!(!gap_of(&good, &bad).is_a_defect());
    }

    #[test]
    fn a_difference_of_few_pictures_is_noise() {
        let found = gap_of(&side(12, 0.9, 3), &side(12, 0.6, 4));
        assert!(found.high - found.low > 0.2, "{found:?}");
    }

    #[test]
    fn the_interval_of_a_proportion_is_the_binomials() {
        // All scores are equal, so AP is the share of positives: 0.25 of 400 has a standard error of
        // sqrt(.25 * .75 / 400) = 0.0217, the difference of two such sides sqrt(2) of it, and 95 % is 1.96 of that.
        let mut flat = side(400, 0.0, 5);
        flat.0.fill(1.0);
        let found = gap_of(&flat, &flat);
        let half = (found.high - found.low) / 2.0;
        assert!((half - 0.0600).abs() < 0.012, "{half}");
        assert_eq!(found.difference, 0.0);
    }

    #[test]
    fn classes_that_one_side_does_not_show_do_not_count() {
        let scores = [1.0, 0.0, 0.0, 1.0];
        let matrix = ScoreMatrix::new(&scores, 2, 2, Layout::SampleMajor).unwrap();
        let first = Labels::from_lists(2, &[vec![0u32], vec![]]).unwrap();
        let second = Labels::from_lists(2, &[vec![1u32], vec![]]).unwrap();
        assert_eq!(gap((&matrix, &first), (&matrix, &second), 0).unwrap(), None);
    }
}
