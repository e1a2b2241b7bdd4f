//! One run as it is compared: its config, its summary, and the scores of single images if they were kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use domain::average_precision::mean_average_precision;
use serde::{Deserialize, Serialize};

use super::{CompareError, shown};
use crate::config::{Config, Sources};
use crate::evaluation::kept::{KeptError, KeptScores, last_scores};
use crate::summary::DataDigests;

/// What is read of `summary.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Summary {
    pub(super) ended: String,
    pub(super) map: Option<f64>,
    pub(super) best_map: Option<f64>,
    pub(super) best_epoch: Option<u32>,
    pub(super) epochs: u32,
    pub(super) epochs_planned: u32,
    pub(super) images_per_second: Option<f64>,
    /// Not in a summary of an older version.
    #[serde(default)]
    pub(super) training_images: Option<u64>,
    /// Not in a summary of an older version.
    #[serde(default)]
    pub(super) data: Option<DataDigests>,
    pub(super) evaluations: Vec<Evaluation>,
    pub(super) per_class: BTreeMap<String, Option<f64>>,
}

/// One point of the curve.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(super) struct Evaluation {
    pub(super) epoch: u32,
    pub(super) map: Option<f64>,
}

/// One class of a run's last evaluation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ClassFigure {
    pub(super) name: String,
    pub(super) ap: Option<f64>,
    pub(super) support: Option<u32>,
}

/// A run.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) path: PathBuf,
    pub(super) config: Config,
    pub(super) summary: Summary,
    /// The last evaluation's, if they were kept.
    pub(super) scores: Option<KeptScores>,
    pub(super) classes: Vec<ClassFigure>,
    /// (name, class indices); empty where scores were not kept.
    pub(super) groups: Vec<(String, Vec<usize>)>,
}

/// A run's figures, as the comparison shows them. Of quality from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunFigures {
    /// Its directory.
    pub path: PathBuf,
    /// `run.seed`.
    pub seed: u64,
    /// `finished`, `stopped` or `failed`.
    pub ended: String,
    /// Whole epochs trained.
    pub epochs: u32,
    /// mAP of the last evaluation.
    pub map: f64,
    /// The highest of all evaluations, chosen on the validation split.
    pub best_map: f64,
    /// Its epoch, from 1.
    pub best_epoch: Option<u32>,
}

impl Run {
    /// Reads what a run has left; odd things go to `notes`.
    pub(super) fn read(path: &Path, notes: &mut Vec<String>) -> Result<Self, CompareError> {
        let sources = Sources {
            file: Some(path.join("config.toml")),
            ..Sources::default()
        };
        let config = Config::load(&sources).map_err(|mistakes| CompareError::Content {
            path: path.join("config.toml"),
            problem: mistakes.to_string(),
        })?;
        let file = path.join("summary.json");
        let text = std::fs::read(&file).map_err(|problem| CompareError::NoRun {
            path: path.to_owned(),
            problem: format!(
                "this run has not ended, or not in order (summary.json: {problem}): wait for it, or `coordinator start --resume \
                 --run-dir {}`",
                path.display()
            ),
        })?;
        let summary: Summary =
            serde_json::from_slice(&text).map_err(|problem| CompareError::Content {
                path: file,
                problem: problem.to_string(),
            })?;
        if summary.map.is_none() {
            return Err(CompareError::NoRun {
                path: path.to_owned(),
                problem: format!(
                    "this run {} without any mAP: leave it out, or resume it",
                    summary.ended
                ),
            });
        }
        if summary.ended != "finished" {
            notes.push(format!(
                "{} {} after {} of {} epochs: its last figure is not of a whole run",
                shown(path),
                summary.ended,
                summary.epochs,
                summary.epochs_planned
            ));
        }
        let scores = match KeptScores::read(&last_scores(path)) {
            Ok(scores) => Some(scores),
            Err(problem @ (KeptError::Missing { .. } | KeptError::Io { .. })) => {
                notes.push(problem.to_string());
                None
            }
            Err(problem) => {
                return Err(CompareError::Content {
                    path: last_scores(path),
                    problem: problem.to_string(),
                });
            }
        };
        let (classes, groups) = figures(path, &summary, scores.as_ref())?;
        Ok(Self {
            path: path.to_owned(),
            config,
            summary,
            scores,
            classes,
            groups,
        })
    }

    pub(super) fn figures(&self) -> RunFigures {
        let map = self.summary.map.unwrap_or_default();
        RunFigures {
            path: self.path.clone(),
            seed: self.config.run.seed,
            ended: self.summary.ended.clone(),
            epochs: self.summary.epochs,
            map,
            best_map: self.summary.best_map.unwrap_or(map),
            best_epoch: self.summary.best_epoch,
        }
    }
}

type Figures = (Vec<ClassFigure>, Vec<(String, Vec<usize>)>);

/// Per class, from the scores where they are: then file and summary must agree.
fn figures(
    path: &Path,
    summary: &Summary,
    scores: Option<&KeptScores>,
) -> Result<Figures, CompareError> {
    let Some(scores) = scores else {
        let of = |(name, ap): (&String, &Option<f64>)| ClassFigure {
            name: name.clone(),
            ap: *ap,
            support: None,
        };
        return Ok((summary.per_class.iter().map(of).collect(), Vec::new()));
    };
    let content = |problem: String| CompareError::Content {
        path: last_scores(path),
        problem,
    };
    let matrix = scores
        .matrix()
        .map_err(|error| content(error.to_string()))?;
    let found = mean_average_precision(&matrix, &scores.labels)
        .map_err(|error| content(error.to_string()))?;
    let apart = found.map.unwrap_or(-1.0) - summary.map.unwrap_or(-1.0);
    if apart.abs() > 1e-9 {
        return Err(content(format!(
            "its mAP is {:?} and that of summary.json {:?}: one of them is of another evaluation",
            found.map, summary.map
        )));
    }
    let classes = scores.about.classes.iter();
    let classes =
        classes
            .zip(found.per_class.iter().zip(&found.support))
            .map(|(name, (ap, support))| ClassFigure {
                name: name.clone(),
                ap: *ap,
                support: Some(*support),
            });
    Ok((classes.collect(), scores.about.groups.clone()))
}
