//! A comparison in words and columns, for a terminal or a page.

use domain::average_precision as ap;
use domain::comparison::seeds::Spread;
use domain::comparison::verdict::points;
use domain::comparison::{bootstrap, seeds};
use domain::model_cost;

use super::{Comparison, Difference, Pair, Side};
use crate::terminal::figures::{count, duration, grouped};

/// Epochs in one line of curves.
const EPOCHS_IN_A_LINE: usize = 10;
/// Classes of a group that are shown unless all are.
const CLASSES_SHOWN: usize = 3;

/// The whole comparison; `all_classes` shows every class and not only the largest differences.
#[must_use]
pub fn text(comparison: &Comparison, all_classes: bool) -> String {
    let Comparison {
        sides,
        differs,
        differs_in_place,
        pairs,
        notes,
        ..
    } = comparison;
    let runs: usize = sides.iter().map(|side| side.runs.len()).sum();
    let mut lines = vec![format!(
        "{} in {} · mAP on validation images, in percent",
        count(sides.len() as u64, "experiment", "experiments"),
        count(runs as u64, "run", "runs")
    )];
    lines.extend(notes.iter().map(|note| format!("note: {note}")));
    let width = sides.iter().map(|side| side.name.chars().count()).max();
    let width = width.unwrap_or(0).max(10);

    heading(&mut lines, "config");
    if differs.is_empty() {
        lines.push("  nothing differs but seeds".to_owned());
    }
    lines.extend(differs.iter().flat_map(|one| difference(one, sides)));
    if !differs_in_place.is_empty() {
        lines.push("  where and how fast, which changes no figure in the mean:".to_owned());
        lines.extend(
            differs_in_place
                .iter()
                .flat_map(|one| difference(one, sides)),
        );
    }

    heading(&mut lines, "mAP over seeds");
    lines.push(format!(
        "  {:width$}  {:>5}  {:<36}  {}",
        "", "seeds", "after the last epoch", "best epoch of each run (chosen on this split)"
    ));
    for side in sides {
        let of = |figures: &Option<Spread>| figures.as_ref().map_or_else(String::new, over_seeds);
        lines.push(format!(
            "  {:width$}  {:>5}  {:<36}  {}",
            side.name,
            side.runs.len(),
            of(&side.last),
            of(&side.best)
        ));
    }

    heading(&mut lines, "each run: last, best (its epoch)");
    for side in sides {
        let runs = side.runs.iter().map(|run| {
            let epoch = run
                .best_epoch
                .map_or_else(String::new, |epoch| format!(" ({epoch})"));
            format!(
                "seed {}: {}, {}{epoch}",
                run.seed,
                hundredths(run.map),
                hundredths(run.best_map)
            )
        });
        let runs: Vec<_> = runs.collect();
        lines.push(format!("  {:width$}  {}", side.name, runs.join(" · ")));
    }

    heading(&mut lines, "mAP by epoch, mean over seeds");
    curves(&mut lines, sides, width);

    heading(&mut lines, "cost");
    cost(&mut lines, sides, width);

    for pair in pairs {
        heading(&mut lines, &format!("{} less {}", pair.first, pair.second));
        lines.extend(judged(pair));
        classes(&mut lines, pair, all_classes);
    }
    lines.push(String::new());
    for definition in [
        ap::DEFINITION,
        ap::MEAN_DEFINITION,
        seeds::DEFINITION,
        bootstrap::DEFINITION,
        model_cost::DEFINITION,
    ] {
        lines.push(format!("  {definition}"));
    }
    lines.push(
        "  a difference is claimed only at three seeds of each side or more, with p < 0.05 over seeds and 0 outside the interval \
         over images"
            .to_owned(),
    );
    lines.join("\n")
}

fn heading(lines: &mut Vec<String>, text: &str) {
    lines.push(String::new());
    lines.push(text.to_owned());
}

fn difference(one: &Difference, sides: &[Side]) -> Vec<String> {
    let values: Vec<_> = sides
        .iter()
        .zip(&one.values)
        .map(|(side, value)| format!("{} {value}", side.name))
        .collect();
    vec![format!("  {}: {}", one.key, values.join(" · "))]
}

/// `0.1234` as `12.34`.
fn hundredths(fraction: f64) -> String {
    format!("{:.2}", 100.0 * fraction)
}

fn over_seeds(spread: &Spread) -> String {
    let mean = hundredths(spread.mean);
    match spread.deviation {
        None => format!("{mean} (one seed)"),
        Some(deviation) => format!(
            "{mean} ± {} ({} to {})",
            hundredths(deviation),
            hundredths(spread.low),
            hundredths(spread.high)
        ),
    }
}

fn curves(lines: &mut Vec<String>, sides: &[Side], width: usize) {
    let mut epochs: Vec<u32> = sides
        .iter()
        .flat_map(|side| side.curve.iter().map(|point| point.epoch))
        .collect();
    epochs.sort_unstable();
    epochs.dedup();
    for some in epochs.chunks(EPOCHS_IN_A_LINE) {
        let numbers: String = some.iter().map(|epoch| format!("{epoch:>7}")).collect();
        lines.push(format!("  {:width$}{numbers}", "epoch"));
        for side in sides {
            let at = |epoch: &u32| {
                let point = side.curve.iter().find(|point| point.epoch == *epoch);
                point.map_or_else(
                    || format!("{:>7}", "-"),
                    |point| format!("{:>7}", hundredths(point.map.mean)),
                )
            };
            let maps: String = some.iter().map(at).collect();
            lines.push(format!("  {:width$}{maps}", side.name));
        }
    }
}

fn cost(lines: &mut Vec<String>, sides: &[Side], width: usize) {
    for side in sides {
        let cost = &side.cost;
        let mut parts = Vec::new();
        if let Some(model) = &cost.model {
            let total = model.total();
            parts.push(format!("{} parameters", grouped(total.parameters)));
            parts.push(format!("{:.3} GFLOPs an image", total.flops as f64 / 1e9));
            let share = 100.0 * model.graph.parameters as f64 / total.parameters.max(1) as f64;
            parts.push(format!(
                "of them {} ({share:.1} %) and {:.4} for model.graph",
                grouped(model.graph.parameters),
                model.graph.flops as f64 / 1e9
            ));
        }
        if let Some(seconds) = cost.seconds_per_epoch {
            let epoch = std::time::Duration::try_from_secs_f64(seconds.mean).unwrap_or_default();
            parts.push(format!("{} an epoch", duration(epoch)));
        }
        if let (Some(hours), Some(workers)) = (cost.worker_hours_per_epoch, cost.workers) {
            parts.push(format!(
                "{:.4} worker-hours an epoch on {}",
                hours.mean,
                count(workers.into(), "worker", "workers")
            ));
        }
        lines.push(format!("  {:width$}  {}", side.name, parts.join(" · ")));
    }
    lines.push(
        "  times are those of the machine at the time, evaluation and checkpoints included"
            .to_owned(),
    );
}

fn judged(pair: &Pair) -> Vec<String> {
    let mut lines = vec![format!(
        "  last epoch   {} · best epochs {} (selected figures, no base for a verdict)",
        points(pair.difference),
        points(pair.best_difference)
    )];
    if let Some(welch) = &pair.seeds {
        let adjusted = pair.adjusted_p.unwrap_or(welch.p);
        let exact = pair
            .permutation_p
            .map_or_else(String::new, |p| format!(" · permutation p = {p:.2}"));
        lines.push(format!(
            "  over seeds   {} to {} · p = {:.3}, adjusted {adjusted:.3}{exact}",
            points(welch.low),
            points(welch.high),
            welch.p
        ));
    }
    if let Some(images) = &pair.images {
        lines.push(format!(
            "  over images  {} to {} · {} draws",
            points(images.low),
            points(images.high),
            grouped(images.replicates.into())
        ));
    }
    lines.push(format!("  verdict      {}", pair.sentence));
    lines
}

fn classes(lines: &mut Vec<String>, pair: &Pair, all: bool) {
    let cell = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), hundredths);
    let signed = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), points);
    lines.push(format!(
        "  {:<24}{:>8}{:>10}{:>10}{:>9}{:>8}",
        "AP by group and class", "images", "first", "second", "diff", "± seeds"
    ));
    for group in &pair.groups {
        lines.push(format!(
            "  {:<24}{:>8}{:>10}{:>10}{:>9}",
            group.name,
            "",
            cell(group.first),
            cell(group.second),
            signed(group.difference)
        ));
        let shown = if all { usize::MAX } else { CLASSES_SHOWN };
        for class in group.classes.iter().take(shown) {
            let support = class
                .support
                .map_or_else(|| "-".to_owned(), |support| grouped(support.into()));
            lines.push(format!(
                "    {:<22}{support:>8}{:>10}{:>10}{:>9}{:>8}",
                class.name,
                cell(class.first),
                cell(class.second),
                signed(class.difference),
                class.error.map_or_else(|| "-".to_owned(), hundredths)
            ));
        }
        let hidden = group.classes.len().saturating_sub(shown);
        if hidden > 0 {
            lines.push(format!(
                "    and {}",
                count(hidden as u64, "class more", "classes more")
            ));
        }
    }
    lines.push(
        "  the largest of many differences are large by chance alone; ± is their standard error over seeds".to_owned(),
    );
}

#[cfg(test)]
mod tests {
    use domain::comparison::bootstrap::Interval;
    use domain::comparison::seeds::{spread, welch};
    use domain::comparison::verdict::{Evidence, sentence, verdict};
    use domain::model_cost::{Cost, ModelCost};

    use super::*;
    use crate::compare::{ClassDifference, CurvePoint, GroupDifference, RunFigures, SideCost};

    fn side(name: &str, maps: [f64; 3], graph: u64) -> Side {
        let runs = (0u64..).zip(maps).map(|(seed, map)| RunFigures {
            path: format!("runs/{name}/seed-{seed}").into(),
            seed,
            ended: "finished".into(),
            epochs: 2,
            map,
            best_map: map + 0.001,
            best_epoch: Some(1),
        });
        let of = |more: f64| spread(&maps.map(|map| map + more));
        Side {
            name: name.into(),
            runs: runs.collect(),
            last: of(0.0),
            best: of(0.001),
            curve: (1..=2)
                .map(|epoch| CurvePoint {
                    epoch,
                    map: of(0.1 * f64::from(epoch) - 0.2).unwrap(),
                })
                .collect(),
            cost: SideCost {
                model: Some(ModelCost {
                    trunk: Cost {
                        parameters: 42_500_160,
                        flops: 62_800_000_000,
                    },
                    heads: Cost {
                        parameters: 24_000_000,
                        flops: 48_000_000,
                    },
                    graph: Cost {
                        parameters: graph,
                        flops: 14 * graph,
                    },
                }),
                seconds_per_epoch: spread(&[1900.0, 1950.0, 2000.0]),
                worker_hours_per_epoch: spread(&[4.2, 4.3, 4.4]),
                workers: Some(8),
            },
        }
    }

    #[test]
    fn a_comparison_as_people_read_it() {
        let (first, second) = (
            side("exp_1", [0.812, 0.806, 0.815], 1_052_685),
            side("exp_2", [0.808, 0.811, 0.803], 0),
        );
        let (a, b) = (first.last.unwrap(), second.last.unwrap());
        let evidence = Evidence {
            finished: true,
            first: a,
            second: b,
            welch: welch(&a, &b),
            adjusted_p: welch(&a, &b).map(|welch| welch.p),
            images: Some(Interval {
                low: 0.0011,
                high: 0.0064,
                replicates: 1000,
            }),
        };
        let class = |name: &str, support, first: f64, second: f64| ClassDifference {
            name: name.into(),
            support: Some(support),
            first: Some(first),
            second: Some(second),
            difference: Some(first - second),
            error: Some(0.004),
        };
        let pair = Pair {
            first: "exp_1".into(),
            second: "exp_2".into(),
            difference: a.mean - b.mean,
            best_difference: 0.0031,
            seeds: evidence.welch,
            adjusted_p: evidence.adjusted_p,
            permutation_p: Some(0.4),
            images: evidence.images,
            verdict: verdict(&evidence),
            sentence: sentence(verdict(&evidence), &evidence, "exp_1", "exp_2"),
            groups: vec![GroupDifference {
                name: "animal".into(),
                first: Some(0.905),
                second: Some(0.9),
                difference: Some(0.005),
                classes: vec![
                    class("zebra", 677, 0.97, 0.95),
                    class("cat", 1480, 0.92, 0.93),
                    class("dog", 1521, 0.86, 0.855),
                    class("bear", 341, 0.87, 0.866),
                ],
            }],
        };
        let comparison = Comparison {
            format: 1,
            sides: vec![first, second],
            differs: vec![Difference {
                key: "model.graph".into(),
                values: vec!["\"gat\"".into(), "\"none\"".into()],
            }],
            differs_in_place: vec![Difference {
                key: "run.workers".into(),
                values: vec!["8".into(), "4".into()],
            }],
            pairs: vec![pair],
            notes: vec!["runs/exp_2/again is of the same config and seed as runs/exp_2/seed-1, and was left out".into()],
        };
        insta::assert_snapshot!(text(&comparison, false));
        // All classes on demand
        assert!(text(&comparison, true).contains("bear"));
    }
}
