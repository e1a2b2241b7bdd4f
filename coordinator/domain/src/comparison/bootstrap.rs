//! The paired bootstrap over images: validation images are drawn again with replacement, the same ones for every run, and
//! every mAP computed again (B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, percentile intervals; for
//! paired systems on one test set as in P. Koehn, "Statistical Significance Tests for Machine Translation Evaluation",
//! EMNLP 2004).
//!
//! It says how far a difference depends on which images the split happens to hold, with the trained models as they are. It
//! knows nothing of other seeds.

use serde::{Deserialize, Serialize};

use crate::average_precision::mean;
use crate::labels::Labels;
use crate::permutation::{GOLDEN, mix};
use crate::ranking::Ranking;
use crate::scores::{ScoreError, ScoreMatrix};

/// What the interval is, to be printed beside it.
pub const DEFINITION: &str = "paired bootstrap over validation images: the images are drawn with replacement, the same for all \
     runs, and the difference of the sides' mean mAP computed again; 95 % percentile interval. Runs as they are: other seeds are \
     not in it";

const POSITIVE: u32 = 1 << 31;
const LAST_OF_EQUALS: u32 = 1 << 30;
const SAMPLE: u32 = LAST_OF_EQUALS - 1;

/// The rankings of one run, made once: 4 bytes a score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranked {
    /// Per class the samples from high to low, with marks for positives and for the last of equal scores.
    classes: Vec<Vec<u32>>,
    samples: u32,
}

impl Ranked {
    /// Ranks every class.
    ///
    /// # Errors
    /// [`ScoreError::LabelsDiffer`], [`ScoreError::NotANumber`].
    pub fn new(scores: &ScoreMatrix<'_>, labels: &Labels) -> Result<Self, ScoreError> {
        scores.check(labels)?;
        let class = |class| {
            Ranking::new(scores, labels, class)
                .entries()
                .map(|(sample, positive, last_of_equals)| {
                    (sample & SAMPLE)
                        | if positive { POSITIVE } else { 0 }
                        | if last_of_equals { LAST_OF_EQUALS } else { 0 }
                })
                .collect()
        };
        Ok(Self {
            classes: (0..scores.classes()).map(class).collect(),
            samples: scores.samples(),
        })
    }

    /// How many images.
    #[must_use]
    pub fn samples(&self) -> u32 {
        self.samples
    }

    /// mAP when image `i` is there `times[i]` times; with 1 for each it is the plain one.
    #[must_use]
    pub fn map(&self, times: &[u32]) -> Option<f64> {
        mean(
            self.classes
                .iter()
                .filter_map(|class| average_precision(class, times)),
        )
    }
}

fn average_precision(ranked: &[u32], times: &[u32]) -> Option<f64> {
    let (mut taken, mut found, mut new, mut sum) = (0u32, 0u32, 0u32, 0.0);
    for &entry in ranked {
        let there = times.get((entry & SAMPLE) as usize).copied().unwrap_or(0);
        taken += there;
        if entry & POSITIVE != 0 {
            new += there;
        }
        if entry & LAST_OF_EQUALS != 0 && new > 0 {
            found += new;
            sum += f64::from(new) * (f64::from(found) / f64::from(taken));
            new = 0;
        }
    }
    (found > 0).then(|| sum / f64::from(found))
}

/// How often each of `samples` images is drawn in one replicate: a pure function of (seed, replicate), so that replicates
/// may be computed in any order and by anyone.
#[must_use]
pub fn draw(seed: u64, replicate: u32, samples: u32) -> Vec<u32> {
    let mut state = mix(mix(seed.wrapping_add(GOLDEN))
        .wrapping_add((u64::from(replicate) + 1).wrapping_mul(GOLDEN)));
    let mut times = vec![0; samples as usize];
    for _ in 0..samples {
        state = state.wrapping_add(GOLDEN);
        let pick = (u128::from(mix(state)) * u128::from(samples)) >> 64;
        times[pick as usize] += 1;
    }
    times
}

/// Where most replicates lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// 2.5 % lie below.
    pub low: f64,
    /// 2.5 % lie above.
    pub high: f64,
    /// How many there are.
    pub replicates: u32,
}

impl Interval {
    /// Whether 0 is outside.
    #[must_use]
    pub fn excludes_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// The 95 % percentile interval of some replicates; `None` of none. Between two of them it is interpolated, as NumPy does.
#[must_use]
pub fn interval(mut replicates: Vec<f64>) -> Option<Interval> {
    replicates.sort_by(f64::total_cmp);
    let last = replicates.len().checked_sub(1)?;
    let at = |fraction: f64| {
        let place = fraction * last as f64;
        let below = place.floor() as usize;
        let above = replicates[last.min(below + 1)];
        replicates[below] + (place - below as f64) * (above - replicates[below])
    };
    Some(Interval {
        low: at(0.025),
        high: at(0.975),
        replicates: u32::try_from(replicates.len()).unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::average_precision::mean_average_precision;
    use crate::scores::Layout;

    /// Scores with ties, labels at random.
    fn example(samples: u32, classes: u32, seed: u64) -> (Vec<f32>, Labels) {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_add(GOLDEN);
            mix(state)
        };
        let scores = (0..samples * classes)
            .map(|_| (next() >> 59) as f32)
            .collect();
        let mut labels = Labels::new(samples, classes);
        for sample in 0..samples {
            for class in 0..classes {
                if next() >> 61 == 0 {
                    labels.insert(sample, class).unwrap();
                }
            }
        }
        (scores, labels)
    }

    #[test]
    fn images_there_twice_count_as_two_images() {
        let (scores, labels) = example(40, 5, 3);
        let matrix = ScoreMatrix::new(&scores, 40, 5, Layout::SampleMajor).unwrap();
        let ranked = Ranked::new(&matrix, &labels).unwrap();

        // With each image once it is the plain mAP
        let plain = mean_average_precision(&matrix, &labels).unwrap().map;
        let close = |a: Option<f64>, b: Option<f64>| (a.unwrap() - b.unwrap()).abs() < 1e-14;
        assert!(close(ranked.map(&[1; 40]), plain));

        // and with images drawn it is that of the drawn list
        let times = draw(1, 0, 40);
        let list: Vec<u32> = (0..40)
            .flat_map(|sample| (0..times[sample as usize]).map(move |_| sample))
            .collect();
        let drawn: Vec<f32> = list
            .iter()
            .flat_map(|sample| scores[*sample as usize * 5..][..5].iter().copied())
            .collect();
        let matrix = ScoreMatrix::new(&drawn, 40, 5, Layout::SampleMajor).unwrap();
        let expected = mean_average_precision(&matrix, &labels.select(&list).unwrap()).unwrap();
        assert!(close(ranked.map(&times), expected.map));
    }

    #[test]
    fn a_draw_has_as_many_images_as_there_are_and_no_two_are_alike() {
        let draws: Vec<_> = (0..3).map(|replicate| draw(7, replicate, 1000)).collect();
        for times in &draws {
            assert_eq!(times.iter().sum::<u32>(), 1000);
            // About 1/e of them are not drawn.
            let missing = times.iter().filter(|times| **times == 0).count();
            assert!((320..420).contains(&missing), "{missing}");
        }
        assert_ne!(draws[0], draws[1]);
        assert_eq!(draws[2], draw(7, 2, 1000));
    }

    #[test]
    fn the_interval_holds_the_middle_of_the_replicates() {
        let found = interval((0..=1000).rev().map(f64::from).collect()).unwrap();
        assert_eq!(
            (found.low, found.high, found.replicates),
            (25.0, 975.0, 1001)
        );
        assert!(found.excludes_zero());
        assert!(!interval(vec![-1.0, 1.0]).unwrap().excludes_zero());
        assert_eq!(interval(Vec::new()), None);
    }
}
