//! What may be said about two experiments, in words. A difference is claimed only where it stands out of the chance of
//! seeds and of the chance of images both; one seed of each side never makes a winner.

use serde::Serialize;

use super::bootstrap::Interval;
use super::seeds::{Spread, Welch};

/// Seeds that each side needs before a difference may be claimed. With two, one odd run is half of the evidence.
pub const SEEDS_NEEDED: u32 = 3;

/// The chance of claiming a difference where there is none, over all pairs compared.
pub const LEVEL: f64 = 0.05;

/// What is known about a pair of experiments. Differences are the first's mAP less the second's, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// Whether every run was trained to its end.
    pub finished: bool,
    /// The first side's seeds.
    pub first: Spread,
    /// The second side's.
    pub second: Spread,
    /// Welch's test over seeds, if it could be made.
    pub welch: Option<Welch>,
    /// Its p, adjusted for the number of pairs.
    pub adjusted_p: Option<f64>,
    /// The bootstrap over images, if the scores of images are there.
    pub images: Option<Interval>,
}

/// What may be said.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing: not every run was trained to its end.
    Unfinished,
    /// Nothing: seeds are too few.
    TooFewSeeds,
    /// Nothing: all seeds of each side agree, so that they are no independent runs.
    NoSpread,
    /// The difference is within what seeds do.
    NoDifference,
    /// It stands out of the seeds, but whether it does out of the images is not known.
    ImagesUnknown,
    /// It stands out of the seeds, not out of the images.
    WithinImages,
    /// The first is higher.
    FirstHigher,
    /// The second is higher.
    SecondHigher,
}

/// Judges.
#[must_use]
pub fn verdict(evidence: &Evidence) -> Verdict {
    let Evidence {
        finished,
        first,
        second,
        welch,
        adjusted_p,
        images,
    } = evidence;
    if !finished {
        return Verdict::Unfinished;
    }
    if first.seeds.min(second.seeds) < SEEDS_NEEDED {
        return Verdict::TooFewSeeds;
    }
    let (Some(welch), Some(p)) = (welch, adjusted_p) else {
        return Verdict::NoSpread;
    };
    if *p >= LEVEL {
        return Verdict::NoDifference;
    }
    let Some(images) = images else {
        return Verdict::ImagesUnknown;
    };
    let one_sided = images.low * welch.difference > 0.0 && images.high * welch.difference > 0.0;
    if !one_sided {
        return Verdict::WithinImages;
    }
    if welch.difference > 0.0 {
        Verdict::FirstHigher
    } else {
        Verdict::SecondHigher
    }
}

/// The verdict as a sentence about the experiments called `first` and `second`.
#[must_use]
pub fn sentence(verdict: Verdict, evidence: &Evidence, first: &str, second: &str) -> String {
    let seeds = match (evidence.first.seeds, evidence.second.seeds) {
        (a, b) if a == b => format!("{a} {}", if a == 1 { "seed" } else { "seeds" }),
        (a, b) => format!("{a} and {b} seeds"),
    };
    let difference = points(evidence.first.mean - evidence.second.mean);
    let means = format!("{first} less {second} is {difference} points of mAP in the mean");
    let over_seeds = evidence.welch.map_or_else(String::new, |welch| {
        format!(
            "95 % interval over seeds {} to {}",
            points(welch.low),
            points(welch.high)
        )
    });
    let over_images = evidence.images.map_or_else(String::new, |images| {
        format!(
            "95 % interval over images {} to {}",
            points(images.low),
            points(images.high)
        )
    });
    let p = evidence.adjusted_p.unwrap_or(1.0);
    match verdict {
        Verdict::Unfinished => format!(
            "no verdict: {means}, but not every run was trained to its end; resume the others, or leave them out"
        ),
        Verdict::TooFewSeeds => format!(
            "no verdict at {seeds}: {means}, and runs of one experiment differ by themselves; train at least {SEEDS_NEEDED} seeds of \
             each"
        ),
        Verdict::NoSpread => format!(
            "no verdict: {means}, but the runs of each side are alike to the last digit, so they are not independent; train \
             other seeds"
        ),
        Verdict::NoDifference => {
            let detectable = evidence.welch.map_or(0.0, |welch| 100.0 * welch.detectable);
            format!(
                "no difference at this many seeds ({seeds}): {means}, {over_seeds}, p = {p:.2}. A true difference of about \
                 {detectable:.1} points would have been found over seeds four times in five; smaller ones need more seeds"
            )
        }
        Verdict::ImagesUnknown => format!(
            "no verdict: {means}, {over_seeds}, but the scores of single images are not kept for every run, so nobody can say \
             how far it depends on the images; evaluate with a version that keeps them"
        ),
        Verdict::WithinImages => format!(
            "no difference beyond the choice of images: {means}, {over_seeds}, p = {p:.3}, but {over_images}: other images of this \
             kind could turn it round"
        ),
        Verdict::FirstHigher | Verdict::SecondHigher => {
            let higher = if verdict == Verdict::FirstHigher {
                first
            } else {
                second
            };
            format!(
                "{higher} is higher at {seeds}: {means}, {over_seeds}, p = {p:.3}, {over_images}. For this data set, recipe and length \
                 of training, by mAP after the last epoch"
            )
        }
    }
}

/// `0.0123` as `+1.23`: points are hundredths.
#[must_use]
pub fn points(difference: f64) -> String {
    let rounded = format!("{:+.2}", 100.0 * difference);
    // What rounds to nothing has no sign.
    match rounded.as_str() {
        "-0.00" | "+0.00" => "0.00".to_owned(),
        _ => rounded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::bootstrap::interval;
    use crate::comparison::seeds::{spread, welch};

    fn evidence(first: &[f64], second: &[f64], images: Option<(f64, f64)>) -> Evidence {
        let (first, second) = (spread(first).unwrap(), spread(second).unwrap());
        let welch = welch(&first, &second);
        Evidence {
            finished: true,
            first,
            second,
            welch,
            adjusted_p: welch.map(|welch| welch.p),
            images: images.and_then(|(low, high)| {
                interval(vec![low, high]).map(|interval| Interval {
                    low,
                    high,
                    ..interval
                })
            }),
        }
    }

    fn say(evidence: &Evidence) -> String {
        sentence(verdict(evidence), evidence, "exp_1", "exp_2")
    }

    #[test]
    fn one_seed_of_each_never_makes_a_winner_however_far_apart() {
        let evidence = evidence(&[0.8128], &[0.1987], Some((0.6, 0.63)));
        assert_eq!(verdict(&evidence), Verdict::TooFewSeeds);
        assert_eq!(
            say(&evidence),
            "no verdict at 1 seed: exp_1 less exp_2 is +61.41 points of mAP in the mean, and runs of one experiment differ by \
             themselves; train at least 3 seeds of each"
        );
    }

    #[test]
    fn two_seeds_are_too_few_even_on_one_side() {
        let evidence = evidence(&[0.5, 0.501], &[0.1, 0.101, 0.102], Some((0.39, 0.41)));
        assert_eq!(verdict(&evidence), Verdict::TooFewSeeds);
        assert!(say(&evidence).starts_with("no verdict at 2 and 3 seeds: "));
    }

    #[test]
    fn a_difference_within_the_seeds_is_none_and_the_sentence_says_what_would_have_shown() {
        let evidence = evidence(
            &[0.812, 0.806, 0.815],
            &[0.808, 0.811, 0.803],
            Some((0.001, 0.006)),
        );
        assert_eq!(verdict(&evidence), Verdict::NoDifference);
        assert_eq!(
            say(&evidence),
            "no difference at this many seeds (3 seeds): exp_1 less exp_2 is +0.37 points of mAP in the mean, 95 % interval over \
             seeds -0.62 to +1.35, p = 0.36. A true difference of about 1.3 points would have been found over seeds four times in \
             five; smaller ones need more seeds"
        );
    }

    #[test]
    fn a_difference_beyond_seeds_and_images_is_told_with_its_side() {
        let higher = [0.801, 0.802, 0.803];
        let lower = [0.701, 0.702, 0.703];
        let first = evidence(&higher, &lower, Some((0.08, 0.12)));
        assert_eq!(verdict(&first), Verdict::FirstHigher);
        let second = evidence(&lower, &higher, Some((-0.12, -0.08)));
        assert_eq!(verdict(&second), Verdict::SecondHigher);
        assert!(
            say(&second)
                .starts_with("exp_2 is higher at 3 seeds: exp_1 less exp_2 is -10.00 points")
        );
    }

    #[test]
    fn runs_that_were_cut_off_allow_no_verdict() {
        let mut evidence = evidence(
            &[0.801, 0.802, 0.803],
            &[0.701, 0.702, 0.703],
            Some((0.08, 0.12)),
        );
        evidence.finished = false;
        assert_eq!(verdict(&evidence), Verdict::Unfinished);
        assert!(say(&evidence).starts_with("no verdict: exp_1 less exp_2 is +10.00 points"));
    }

    #[test]
    fn a_difference_that_other_images_could_turn_round_is_not_claimed() {
        let seeds = ([0.801, 0.802, 0.803], [0.791, 0.792, 0.793]);
        let within = evidence(&seeds.0, &seeds.1, Some((-0.002, 0.03)));
        assert_eq!(verdict(&within), Verdict::WithinImages);
        let unknown = evidence(&seeds.0, &seeds.1, None);
        assert_eq!(verdict(&unknown), Verdict::ImagesUnknown);
        // Not even where all of the interval is on the other side
        let against = evidence(&seeds.0, &seeds.1, Some((-0.03, -0.002)));
        assert_eq!(verdict(&against), Verdict::WithinImages);
    }

    #[test]
    fn several_pairs_make_each_claim_harder() {
        let mut evidence = evidence(
            &[0.805, 0.800, 0.803],
            &[0.795, 0.799, 0.792],
            Some((0.001, 0.02)),
        );
        assert_eq!(verdict(&evidence), Verdict::FirstHigher);
        evidence.adjusted_p = evidence.adjusted_p.map(|p| 3.0 * p);
        assert_eq!(verdict(&evidence), Verdict::NoDifference);
    }

    #[test]
    fn runs_that_agree_to_the_bit_are_not_independent() {
        let evidence = evidence(&[0.5; 3], &[0.4; 3], Some((0.05, 0.15)));
        assert_eq!(verdict(&evidence), Verdict::NoSpread);
    }
}
