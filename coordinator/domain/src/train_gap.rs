//! Whether training pictures, scored as validation's are, do worse than those: a true defect (labels and pictures that do
//! not belong together, running statistics that lag, a transform that differs), unless it is noise.
//!
//! Noise is what chance does to pictures of one kind: the pictures of both sides are shared out between them at random, as
//! many to each as there are, and the difference of the sides' mAPs is taken each time (a permutation test: Fisher 1935),
//! over the classes that both sides show. AP of few pictures is higher by itself, so sides of different sizes differ even
//! where they are of one kind; these differences have the same sizes and therefore the same bias.

use serde::{Deserialize, Serialize};

use crate::labels::Labels;
use crate::permutation::{GOLDEN, mix};
use crate::scores::{Layout, ScoreError, ScoreMatrix};

/// Times that pictures are shared out: the ends of the interval are then the fifth smallest and largest difference.
const DRAWS: usize = 200;

/// Clean training mAP minus validation mAP, over the classes that both show.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// The difference, as a fraction of 1.
    pub difference: f64,
    /// Lower end of the middle 95 % of differences that chance makes between sides of one kind and these sizes.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Gap {
    /// Whether training pictures do worse than validation's by more than noise.
    #[must_use]
    pub fn is_a_defect(&self) -> bool {
        self.difference < self.low
    }

    /// What people are told of a defect.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "clean training mAP less validation mAP is {:+.1} points; between pictures of one kind, so many on each side, \
             chance makes {:+.1} to {:+.1} (95 %): more than noise. Training pictures that are scored as validation's are \
             should do better; look whether file names and labels of the training split belong together, and whether both \
             splits are of one kind",
            100.0 * self.difference,
            100.0 * self.low,
            100.0 * self.high
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
    train.0.check(train.1)?;
    val.0.check(val.1)?;
    let classes = ranked(&[train, val]);
    let of_train = train.0.samples() as usize;
    let mut pictures: Vec<bool> = vec![true; of_train];
    pictures.resize(of_train + val.0.samples() as usize, false);
    let difference = |in_train: &[bool]| {
        let pairs = classes.iter().filter_map(|class| {
            Some(
                class.average_precision(in_train, true)?
                    - class.average_precision(in_train, false)?,
            )
        });
        let (sum, count) = pairs.fold((0.0, 0u32), |(sum, count), d| (sum + d, count + 1));
        (count > 0).then(|| sum / f64::from(count))
    };
    let Some(observed) = difference(&pictures) else {
        return Ok(None);
    };
    let mut random = Random(seed);
    let mut drawn: Vec<f64> = (0..DRAWS)
        .filter_map(|_| {
            random.shuffle(&mut pictures);
            difference(&pictures)
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

/// The samples of both sides, best first, of one class.
struct Ranking {
    /// In groups of equal scores: (sample, of the first side and then of the second; whether it is positive; whether it
    /// ends its group).
    order: Vec<(u32, bool, bool)>,
}

/// Both sides' samples in one order for every class, so that they can be shared out anew without ranking them again.
fn ranked(sides: &[(&ScoreMatrix<'_>, &Labels); 2]) -> Vec<Ranking> {
    let at = |scores: &ScoreMatrix<'_>, sample: usize, class: usize| {
        let (samples, classes) = (scores.samples() as usize, scores.classes() as usize);
        match scores.layout() {
            Layout::SampleMajor => scores.as_slice()[sample * classes + class],
            Layout::ClassMajor => scores.as_slice()[class * samples + sample],
        }
    };
    let positives = sides.map(|(_, labels)| labels.by_class());
    let one = |class: usize| {
        let mut all: Vec<(f32, u32, bool)> = Vec::new();
        for ((scores, _), positives) in sides.iter().zip(&positives) {
            let (first, samples) = (all.len(), scores.samples() as usize);
            all.extend((0..samples).map(|sample| {
                let place = (first + sample) as u32;
                (at(scores, sample, class), place, false)
            }));
            for &sample in &positives[class] {
                all[first + sample as usize].2 = true;
            }
        }
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        let order = (0..all.len()).map(|i| {
            let ends = all.get(i + 1).is_none_or(|next| next.0 != all[i].0);
            (all[i].1, all[i].2, ends)
        });
        Ranking {
            order: order.collect(),
        }
    };
    let classes = positives[0].len().min(positives[1].len());
    (0..classes).map(one).collect()
}

impl Ranking {
    /// Of the samples that are in the first side, or that are not; `None` without a positive.
    fn average_precision(&self, in_first: &[bool], first: bool) -> Option<f64> {
        let (mut taken, mut found, mut fresh, mut sum) = (0u64, 0u64, 0u64, 0.0);
        for &(sample, positive, ends) in &self.order {
            if in_first[sample as usize] == first {
                taken += 1;
                fresh += u64::from(positive);
            }
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
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(GOLDEN);
        ((u128::from(mix(self.0)) * limit as u128) >> 64) as usize
    }

    /// Fisher and Yates.
    fn shuffle(&mut self, values: &mut [bool]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests;
