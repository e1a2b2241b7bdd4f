//! Runs that differ only in their seed are one side of the comparison.

use std::collections::BTreeSet;

use domain::comparison::seeds::{Spread, spread};
use serde::Serialize;

use super::cost::SideCost;
use super::run::{Run, RunFigures};
use super::shown;
use crate::config::{Config, KEYS};
use crate::summary::DataDigests;

const SEED: &str = "run.seed";

/// One experiment with its seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    /// What it is called here.
    pub name: String,
    /// Its runs, by seed.
    pub runs: Vec<RunFigures>,
    /// mAP of the last evaluation over seeds.
    pub last: Option<Spread>,
    /// Highest mAP of each run over seeds: selected figures.
    pub best: Option<Spread>,
    /// mAP by epoch.
    pub curve: Vec<CurvePoint>,
    /// What it costs.
    pub cost: SideCost,
}

/// mAP after one epoch, over the seeds that were evaluated there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CurvePoint {
    /// From 1.
    pub epoch: u32,
    /// mAP over seeds.
    pub map: Spread,
}

/// A key in which sides differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// `section.key`.
    pub key: String,
    /// By side: its value as TOML, or `not set`.
    pub values: Vec<String>,
}

/// A side before it is judged.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) name: String,
    /// By seed, each seed once.
    pub(super) runs: Vec<Run>,
}

impl Gathered {
    pub(super) fn config(&self) -> Option<&Config> {
        self.runs.first().map(|run| &run.config)
    }

    pub(super) fn side(&self) -> Side {
        let runs: Vec<RunFigures> = self.runs.iter().map(Run::figures).collect();
        let of =
            |figure: fn(&RunFigures) -> f64| spread(&runs.iter().map(figure).collect::<Vec<_>>());
        Side {
            name: self.name.clone(),
            last: of(|run| run.map),
            best: of(|run| run.best_map),
            curve: self.curve(),
            cost: SideCost::of(&self.runs),
            runs,
        }
    }

    fn curve(&self) -> Vec<CurvePoint> {
        let epochs: BTreeSet<u32> = self
            .runs
            .iter()
            .flat_map(|run| run.summary.evaluations.iter().map(|point| point.epoch))
            .collect();
        let at = |epoch: u32| {
            let points = self.runs.iter().flat_map(|run| &run.summary.evaluations);
            let maps: Vec<f64> = points
                .filter(|point| point.epoch == epoch)
                .filter_map(|point| point.map)
                .collect();
            Some(CurvePoint {
                epoch,
                map: spread(&maps)?,
            })
        };
        epochs.into_iter().filter_map(at).collect()
    }
}

/// What runs of one side have in common.
#[derive(Debug, PartialEq)]
struct Identity {
    config: Vec<Option<toml::Value>>,
    data: Option<DataDigests>,
    /// Where its data lie, of a run that does not say what they are.
    paths: Vec<Option<toml::Value>>,
}

impl Identity {
    fn of(run: &Run) -> Self {
        let data = run.summary.data.clone();
        let known = data.is_some();
        Self {
            config: values(&run.config, |key| !key.may_change && key.name != SEED),
            data,
            paths: values(&run.config, |key| {
                !known && key.may_change && DATA.contains(&key.name)
            }),
        }
    }
}

/// Keys of which a data set consists.
const DATA: [&str; 5] = [
    "data.root",
    "data.train_annotations",
    "data.train_images",
    "data.val_annotations",
    "data.val_images",
];

/// Puts runs into sides, in the order in which each side first appears. Of runs with one seed the first counts: a second
/// one is no independent observation.
pub(super) fn gather(runs: Vec<Run>, notes: &mut Vec<String>) -> Vec<Gathered> {
    let mut sides: Vec<(Identity, Gathered)> = Vec::new();
    for run in runs {
        let identity = Identity::of(&run);
        let side = match sides.iter().position(|(known, _)| *known == identity) {
            Some(at) => &mut sides[at].1,
            None => {
                let empty = Gathered {
                    name: String::new(),
                    runs: Vec::new(),
                };
                sides.push((identity, empty));
                let last = sides.len() - 1;
                &mut sides[last].1
            }
        };
        let seed = run.config.run.seed;
        match side.runs.iter().find(|known| known.config.run.seed == seed) {
            Some(known) => notes.push(format!(
                "{} is of the same config and seed as {}, and was left out: a repetition is no further seed",
                shown(&run.path),
                shown(&known.path)
            )),
            None => side.runs.push(run),
        }
    }
    let mut sides: Vec<Gathered> = sides.into_iter().map(|(_, side)| side).collect();
    for side in &mut sides {
        side.runs.sort_by_key(|run| run.config.run.seed);
    }
    name_sides(&mut sides);
    sides
}

/// Each side by the folder that its runs share, or by its first run; if that does not tell them apart, by letters.
fn name_sides(sides: &mut [Gathered]) {
    let last_name = |path: &std::path::Path| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    for side in sides.iter_mut() {
        let Some(first) = side.runs.first() else {
            continue;
        };
        // A path such as `.` has no name by itself.
        let whole = std::path::absolute(&first.path).unwrap_or_else(|_| first.path.clone());
        let own = last_name(&whole).unwrap_or_else(|| shown(&whole));
        side.name = match whole.parent() {
            Some(parent) if own.starts_with("seed-") => last_name(parent).unwrap_or(own),
            _ => own,
        };
    }
    let names: BTreeSet<_> = sides.iter().map(|side| side.name.clone()).collect();
    if names.len() < sides.len() {
        for (side, letter) in sides.iter_mut().zip('A'..='Z') {
            side.name = format!("{letter} ({})", side.name);
        }
    }
}

/// Keys in which the sides differ: those that say what is computed, and those that say where and how fast. Of each side the
/// first run is looked at; its other runs differ from it at most in the latter.
pub(super) fn differences(sides: &[Gathered]) -> (Vec<Difference>, Vec<Difference>) {
    let configs: Vec<&Config> = sides.iter().filter_map(Gathered::config).collect();
    let of = |key: &'static str| -> Option<Difference> {
        let all: Vec<String> = configs.iter().map(|config| value(config, key)).collect();
        let other = all.iter().any(|value| *value != all[0]);
        other.then(|| Difference {
            key: key.to_owned(),
            values: all,
        })
    };
    let keys = |may_change: bool| -> Vec<Difference> {
        KEYS.iter()
            .filter(move |key| key.may_change == may_change && key.name != SEED)
            .filter_map(|key| of(key.name))
            .collect()
    };
    let digest = |name: &str, of: fn(&DataDigests) -> &String| -> Option<Difference> {
        let one = |side: &Gathered| {
            let data = side.runs.first()?.summary.data.as_ref()?;
            Some(of(data).chars().take(12).collect::<String>())
        };
        let all: Vec<String> = sides
            .iter()
            .map(|side| one(side).unwrap_or_else(|| "not recorded".to_owned()))
            .collect();
        let other = all.iter().any(|value| *value != all[0]);
        other.then(|| Difference {
            key: name.to_owned(),
            values: all,
        })
    };
    let mut computed = keys(false);
    computed.extend(digest("pictures and labels of training", |data| {
        &data.train
    }));
    computed.extend(digest("pictures and labels of validation", |data| {
        &data.val
    }));
    (computed, keys(true))
}

fn value(config: &Config, key: &str) -> String {
    config
        .settings()
        .find(|(known, _)| known.name == key)
        .and_then(|(_, setting)| setting.value.as_ref())
        .map_or_else(|| "not set".to_owned(), ToString::to_string)
}

fn values(
    config: &Config,
    wanted: impl Fn(&crate::config::Key) -> bool,
) -> Vec<Option<toml::Value>> {
    config
        .settings()
        .filter(|(key, _)| wanted(key))
        .map(|(_, setting)| setting.value.clone())
        .collect()
}
