//! Every two sides: differences per class and over all, chance over seeds and over images, the verdict.

use std::path::PathBuf;

use domain::comparison::bootstrap::{Interval, Ranked, draw, interval};
use domain::comparison::seeds::{Welch, detectable, holm, permutation_p, spread, welch};
use domain::comparison::verdict::{Evidence, Verdict, sentence, verdict};
use serde::Serialize;

use super::run::{ClassFigure, Run};
use super::sides::{Gathered, Side, differences, gather};
use super::{CompareError, Comparison, Options, shown};
use crate::evaluation::kept::KeptScores;

/// Of the draws of images: a comparison gives the same interval each time it is made.
const SEED: u64 = 0;

/// Two sides. Differences are the first's figure less the second's, from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// Name of a side.
    pub first: String,
    /// Name of another.
    pub second: String,
    /// Of mean mAP after the last epoch.
    pub difference: f64,
    /// Of the mean of best epochs: selected figures, no base for a verdict.
    pub best_difference: f64,
    /// Over seeds.
    pub seeds: Option<Welch>,
    /// p of it, adjusted for the number of pairs.
    pub adjusted_p: Option<f64>,
    /// The exact permutation test over seeds.
    pub permutation_p: Option<f64>,
    /// Over images.
    pub images: Option<Interval>,
    /// What may be said.
    pub verdict: Verdict,
    /// The same in words.
    pub sentence: String,
    /// By group, the largest difference first.
    pub groups: Vec<GroupDifference>,
}

/// One group of classes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupDifference {
    /// Its name.
    pub name: String,
    /// Mean AP of its classes, mean over seeds.
    pub first: Option<f64>,
    /// The same of the second side.
    pub second: Option<f64>,
    /// First less second.
    pub difference: Option<f64>,
    /// Its classes, the largest difference first.
    pub classes: Vec<ClassDifference>,
}

/// One class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassDifference {
    /// Its name.
    pub name: String,
    /// Validation images that show it.
    pub support: Option<u32>,
    /// AP, mean over seeds; `None` without a positive.
    pub first: Option<f64>,
    /// The same of the second side.
    pub second: Option<f64>,
    /// First less second.
    pub difference: Option<f64>,
    /// Standard error of the difference over seeds; `None` with one seed.
    pub error: Option<f64>,
}

/// Compares the runs in these directories.
///
/// # Errors
/// [`CompareError`].
pub fn compare(run_dirs: &[PathBuf], options: Options) -> Result<Comparison, CompareError> {
    let mut notes = Vec::new();
    let runs = run_dirs
        .iter()
        .map(|path| Run::read(path, &mut notes))
        .collect::<Result<Vec<_>, _>>()?;
    same_classes(&runs)?;
    let gathered = gather(runs, &mut notes);
    let sides: Vec<Side> = gathered.iter().map(Gathered::side).collect();
    let (differs, differs_in_place) = differences(&gathered);
    lengths(&sides, &mut notes);
    let resampled = resampled(&gathered, options, &mut notes);
    let mut pairs = Vec::new();
    for first in 0..sides.len() {
        for second in first + 1..sides.len() {
            let images = resampled.as_ref().and_then(|replicates| {
                let of = |replicate: &Vec<f64>| replicate[first] - replicate[second];
                interval(replicates.iter().map(of).collect())
            });
            let (first, second) = (
                (&sides[first], &gathered[first]),
                (&sides[second], &gathered[second]),
            );
            pairs.extend(pair(first, second, images));
        }
    }
    judge(&mut pairs, &sides);
    Ok(Comparison {
        format: 1,
        sides,
        differs,
        differs_in_place,
        pairs,
        notes,
    })
}

fn same_classes(runs: &[Run]) -> Result<(), CompareError> {
    let names = |run: &Run| -> Vec<String> {
        let mut names: Vec<_> = run.classes.iter().map(|class| class.name.clone()).collect();
        names.sort();
        names
    };
    let Some((first, others)) = runs.split_first() else {
        return Ok(());
    };
    match others.iter().find(|run| names(run) != names(first)) {
        None => Ok(()),
        Some(other) => Err(CompareError::OtherClasses {
            first: shown(&first.path),
            second: shown(&other.path),
        }),
    }
}

/// Sides that trained for unequal numbers of epochs are not alike in cost.
fn lengths(sides: &[Side], notes: &mut Vec<String>) {
    let epochs = || {
        sides
            .iter()
            .flat_map(|side| side.runs.iter().map(|run| run.epochs))
    };
    if epochs().min() != epochs().max() {
        notes.push("the runs trained for unequal numbers of epochs: their last figures are not of equal effort".to_owned());
    }
}

/// By replicate: each side's mean mAP on images drawn again, the same for all runs. `None` where scores are missing or of
/// other images.
fn resampled(
    sides: &[Gathered],
    options: Options,
    notes: &mut Vec<String>,
) -> Option<Vec<Vec<f64>>> {
    let mut first: Option<&KeptScores> = None;
    let mut ranked: Vec<Vec<Ranked>> = Vec::new();
    for side in sides {
        let mut runs = Vec::new();
        for run in &side.runs {
            let scores = run.scores.as_ref()?;
            let like = *first.get_or_insert(scores);
            if (&like.image_ids, &like.labels) != (&scores.image_ids, &scores.labels) {
                notes.push(format!(
                    "{} was validated on other images or labels than the runs before it: mAP of different images cannot be compared \
                     image by image, and hardly at all",
                    shown(&run.path)
                ));
                return None;
            }
            runs.push(Ranked::new(&scores.matrix().ok()?, &scores.labels).ok()?);
        }
        ranked.push(runs);
    }
    let samples = first?.labels.samples();
    let one = |replicate: u32| -> Option<Vec<f64>> {
        let times = draw(SEED, replicate, samples);
        let mean = |runs: &Vec<Ranked>| {
            let maps: Option<Vec<f64>> = runs.iter().map(|run| run.map(&times)).collect();
            spread(&maps?).map(|spread| spread.mean)
        };
        ranked.iter().map(mean).collect()
    };
    let threads = u32::try_from(options.threads.max(1)).unwrap_or(1);
    let parts = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let one = &one;
                let mine = (thread..options.replicates).step_by(threads as usize);
                scope.spawn(move || mine.filter_map(one).collect::<Vec<_>>())
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect::<Vec<_>>()
    });
    Some(parts.into_iter().flatten().collect())
}

fn pair(
    (first, first_runs): (&Side, &Gathered),
    (second, second_runs): (&Side, &Gathered),
    images: Option<Interval>,
) -> Option<Pair> {
    let (a, b) = (first.last?, second.last?);
    let maps = |side: &Side| side.runs.iter().map(|run| run.map).collect::<Vec<_>>();
    Some(Pair {
        first: first.name.clone(),
        second: second.name.clone(),
        difference: a.mean - b.mean,
        best_difference: first.best?.mean - second.best?.mean,
        seeds: welch(&a, &b),
        adjusted_p: None,
        permutation_p: permutation_p(&maps(first), &maps(second)),
        images,
        // Judged once all pairs are there.
        verdict: Verdict::TooFewSeeds,
        sentence: String::new(),
        groups: groups(first_runs, second_runs),
    })
}

/// The verdicts, each p adjusted for all pairs that have one.
fn judge(pairs: &mut [Pair], sides: &[Side]) {
    let tested: Vec<usize> = (0..pairs.len())
        .filter(|at| pairs[*at].seeds.is_some())
        .collect();
    let p: Vec<f64> = tested
        .iter()
        .filter_map(|at| pairs[*at].seeds.map(|welch| welch.p))
        .collect();
    let together = tested.len();
    for (at, adjusted) in tested.into_iter().zip(holm(&p)) {
        pairs[at].adjusted_p = Some(adjusted);
        if let Some(welch) = &mut pairs[at].seeds {
            welch.detectable = detectable(welch.error, welch.freedom, together);
        }
    }
    for pair in pairs {
        let side = |name: &str| sides.iter().find(|side| side.name == name);
        let (Some(a), Some(b)) = (side(&pair.first), side(&pair.second)) else {
            continue;
        };
        let (Some(first), Some(second)) = (a.last, b.last) else {
            continue;
        };
        let evidence = Evidence {
            finished: a
                .runs
                .iter()
                .chain(&b.runs)
                .all(|run| run.ended == "finished"),
            first,
            second,
            welch: pair.seeds,
            adjusted_p: pair.adjusted_p,
            images: pair.images,
        };
        pair.verdict = verdict(&evidence);
        pair.sentence = sentence(pair.verdict, &evidence, &pair.first, &pair.second);
    }
}

fn groups(first: &Gathered, second: &Gathered) -> Vec<GroupDifference> {
    let Some(like) = first.runs.first() else {
        return Vec::new();
    };
    let all = vec![("all classes".to_owned(), (0..like.classes.len()).collect())];
    let groups = if like.groups.is_empty() {
        &all
    } else {
        &like.groups
    };
    let mut found: Vec<GroupDifference> = groups
        .iter()
        .map(|(name, members)| {
            let members = members.iter().filter_map(|class| like.classes.get(*class));
            let mut classes: Vec<_> = members
                .map(|class| of_class(class, first, second))
                .collect();
            classes.sort_by(|a, b| largest_first(a.difference, b.difference));
            let mean = |of: fn(&ClassDifference) -> Option<f64>| {
                spread(&classes.iter().filter_map(of).collect::<Vec<_>>()).map(|spread| spread.mean)
            };
            let (first, second) = (mean(|class| class.first), mean(|class| class.second));
            GroupDifference {
                name: name.clone(),
                first,
                second,
                difference: first.zip(second).map(|(first, second)| first - second),
                classes,
            }
        })
        .collect();
    found.sort_by(|a, b| largest_first(a.difference, b.difference));
    found
}

fn of_class(class: &ClassFigure, first: &Gathered, second: &Gathered) -> ClassDifference {
    let over_seeds = |side: &Gathered| {
        let of = |run: &Run| run.classes.iter().find(|one| one.name == class.name)?.ap;
        spread(&side.runs.iter().filter_map(of).collect::<Vec<_>>())
    };
    let (a, b) = (over_seeds(first), over_seeds(second));
    let both = a.zip(b);
    ClassDifference {
        name: class.name.clone(),
        support: class.support,
        first: a.map(|side| side.mean),
        second: b.map(|side| side.mean),
        difference: both.map(|(a, b)| a.mean - b.mean),
        error: both
            .and_then(|(a, b)| welch(&a, &b))
            .map(|welch| welch.error),
    }
}

/// Without a difference last; of equals the order stays.
fn largest_first(a: Option<f64>, b: Option<f64>) -> std::cmp::Ordering {
    let size = |difference: Option<f64>| difference.map_or(-1.0, f64::abs);
    size(b).total_cmp(&size(a))
}
