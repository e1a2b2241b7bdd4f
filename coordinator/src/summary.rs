//! `summary.json`: what a run reached, for programs. All figures of quality are from 0 to 1.

use data::coco::{Dataset, Split};
use domain::average_precision as ap;
use domain::train_gap::Gap;
use proto::v1::Phase;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::evaluation::json::{definitions, figures_json};
use crate::evaluation::scores_folder::{class_names, groups_of};
use crate::evaluation::{Evaluated, Metrics, labels_of};
use crate::further::Further;
use crate::run::Outcome;

/// What `best` is, to be printed beside it.
pub const BEST_DEFINITION: &str = "best: the evaluation of highest mAP of all epochs, chosen on the validation split it is \
     reported for: a selected figure, higher on average than one whose epoch was fixed beforehand. last: no choice";

/// What a run reached, as the final summary and `summary.json` say it.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The run's name.
    pub run_id: String,
    /// `finished`, `stopped` or `failed`.
    pub ended: &'static str,
    /// The process's exit code.
    pub exit_code: u8,
    /// Why it ended, in one sentence.
    pub reason: String,
    /// Of the last evaluation.
    pub map: Option<f64>,
    /// The highest of all evaluations.
    pub best_map: Option<f64>,
    /// Its epoch, from 1.
    pub best_epoch: Option<u32>,
    /// What one score for all pictures gives.
    pub chance_map: Option<f64>,
    /// What a linear classifier on thumbnails gives, if it was asked for and done.
    pub linear_baseline_map: Option<f64>,
    /// Class names in class order.
    pub classes: Vec<String>,
    /// (name, class indices) of each group.
    pub groups: Vec<(String, Vec<usize>)>,
    /// What the data set is known by, wherever it lies.
    pub data: DataDigests,
    /// Pictures of the training split.
    pub train_samples: usize,
    /// Pictures of the validation split.
    pub val_samples: usize,
    /// The last evaluation.
    pub last: Option<Evaluated>,
    /// The one with the highest mAP, the earliest of equals: selected on the validation split.
    pub best: Option<Evaluated>,
    /// (epoch from 1, steps before it, mAP) of each evaluation.
    pub evaluations: Vec<(u32, u64, Option<f64>)>,
    /// What each evaluation showed beside it: epoch from 1, figures, and how far clean training mAP is below validation's.
    pub further: Vec<(u32, Vec<Further>, Option<Gap>)>,
    /// (epoch from 1, mean loss) of each whole epoch.
    pub epoch_losses: Vec<(u32, f64)>,
    /// Whole epochs trained.
    pub epochs: u32,
    /// Epochs the config asks for.
    pub epochs_planned: u32,
    /// Steps committed.
    pub steps: u64,
    /// Steps of the whole run.
    pub steps_planned: u64,
    /// Images this process trained on per second, evaluation and checkpoints included.
    pub images_per_second: Option<f64>,
    /// Fraction of this process's steps that ranks waited for data.
    pub data_wait: Option<f64>,
    /// Wall time of training in this process, seconds.
    pub seconds: f64,
    /// Folder of the newest checkpoint.
    pub checkpoint: Option<String>,
    /// The best of the checkpoints that there are.
    pub best_checkpoint: Option<BestCheckpoint>,
}

/// Where `checkpoints/best` leads.
#[derive(Clone, Debug, PartialEq)]
pub struct BestCheckpoint {
    /// Its folder.
    pub path: String,
    /// Steps committed before it.
    pub step: u64,
    /// Its epoch, from 1; nothing where it is of no evaluation on record.
    pub epoch: Option<u32>,
    /// Its mAP.
    pub map: Option<f64>,
}

/// SHA-256 of what each split consists of: class names, and each picture's id, file name and classes, in order. Not of
/// the pictures themselves, nor of where they lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataDigests {
    /// Of the training split.
    pub train: String,
    /// Of the validation split.
    pub val: String,
}

impl DataDigests {
    /// Those of a data set.
    #[must_use]
    pub fn of(dataset: &Dataset) -> Self {
        let names = class_names(dataset).join("\0");
        let of = |split: &Split| {
            let digest = Sha256::new()
                .chain_update(&names)
                .chain_update(split.identity())
                .finalize();
            digest.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        Self {
            train: of(&dataset.train),
            val: of(&dataset.val),
        }
    }
}

impl Summary {
    /// Puts together what the run returned.
    #[must_use]
    pub fn new(
        outcome: &Outcome,
        dataset: &Dataset,
        steps_per_epoch: u32,
        linear_baseline_map: Option<f64>,
    ) -> Self {
        let status = &outcome.status;
        let map_of = |evaluated: &Evaluated| evaluated.metrics.average_precision.map;
        let mut best: Option<(f64, &Evaluated)> = None;
        for evaluated in &outcome.evaluations {
            if let Some(map) =
                map_of(evaluated).filter(|map| best.is_none_or(|(highest, _)| *map > highest))
            {
                best = Some((map, evaluated));
            }
        }
        let chance_map = labels_of(&dataset.val)
            .ok()
            .and_then(|labels| ap::chance_map(&labels.support(), labels.samples()));
        let seconds = outcome.training.as_secs_f64();
        let last_checkpoint = outcome.checkpoints.iter().find(|entry| entry.last);
        let epoch_of = |step: u64| {
            let mut of = outcome.evaluations.iter();
            of.find(|known| known.step == step)
                .map(|known| known.epoch + 1)
        };
        let best_checkpoint = outcome.checkpoints.iter().find(|entry| entry.best);
        Self {
            run_id: status.run_id.clone(),
            ended: match status.phase() {
                Phase::Finished => "finished",
                Phase::Stopped => "stopped",
                _ => "failed",
            },
            exit_code: outcome.exit_code,
            reason: outcome.reason.clone(),
            map: outcome.evaluations.last().and_then(map_of),
            best_map: best.map(|(map, _)| map),
            best_epoch: best.map(|(_, evaluated)| evaluated.epoch + 1),
            chance_map,
            linear_baseline_map,
            classes: class_names(dataset),
            groups: groups_of(dataset),
            data: DataDigests::of(dataset),
            train_samples: dataset.train.samples.len(),
            val_samples: dataset.val.samples.len(),
            last: outcome.evaluations.last().cloned(),
            best: best.map(|(_, evaluated)| evaluated.clone()),
            evaluations: outcome
                .evaluations
                .iter()
                .map(|e| (e.epoch + 1, e.step, map_of(e)))
                .collect(),
            further: outcome
                .evaluations
                .iter()
                .filter(|e| !e.metrics.further.is_empty())
                .map(|e| {
                    let Metrics {
                        further, train_gap, ..
                    } = &e.metrics;
                    (e.epoch + 1, further.clone(), *train_gap)
                })
                .collect(),
            epoch_losses: outcome
                .epoch_losses
                .iter()
                .map(|(epoch, loss)| (epoch + 1, *loss))
                .collect(),
            epochs: u32::try_from(status.step / u64::from(steps_per_epoch.max(1)))
                .unwrap_or(u32::MAX),
            epochs_planned: status.epochs,
            steps: status.step,
            steps_planned: status.total_steps,
            // What is reported in less was trained while no coordinator was there.
            images_per_second: (outcome.images > 0 && seconds >= 0.1)
                .then(|| outcome.images as f64 / seconds),
            data_wait: outcome.data_wait,
            seconds,
            checkpoint: last_checkpoint.map(|entry| entry.path.display().to_string()),
            best_checkpoint: best_checkpoint.map(|entry| BestCheckpoint {
                path: entry.path.display().to_string(),
                step: entry.step,
                epoch: epoch_of(entry.step),
                map: entry.map,
            }),
        }
    }

    /// Whether the best evaluation is of a state of which there is a checkpoint; nothing without an evaluation. It has none
    /// where none was due (`run.snapshot_every_epochs`), or it was lost with the rank that was handing it over.
    #[must_use]
    pub fn best_has_checkpoint(&self) -> Option<bool> {
        let best = self.best.as_ref()?;
        let checkpoint = self.best_checkpoint.as_ref();
        Some(checkpoint.is_some_and(|checkpoint| checkpoint.step == best.step))
    }

    /// As `summary.json` holds it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let metrics = self.last.as_ref().map(|last| &last.metrics);
        let per_class: Map<String, Value> = match metrics {
            Some(metrics) => self
                .classes
                .iter()
                .cloned()
                .zip(
                    metrics
                        .average_precision
                        .per_class
                        .iter()
                        .map(|ap| json!(ap)),
                )
                .collect(),
            None => Map::new(),
        };
        let without_positive: Vec<&String> = metrics.map_or_else(Vec::new, |metrics| {
            let classes = metrics.average_precision.classes_without_positive.iter();
            classes
                .filter_map(|class| self.classes.get(*class as usize))
                .collect()
        });
        let whole = |evaluated: &Evaluated| {
            let mut value = figures_json(&evaluated.metrics, &self.classes, &self.groups);
            value["epoch"] = json!(evaluated.epoch + 1);
            value["step"] = json!(evaluated.step);
            value
        };
        let evaluation = |(epoch, step, map): &(u32, u64, Option<f64>)| json!({ "epoch": epoch, "step": step, "map": map });
        let further = |(epoch, figures, gap): &(u32, Vec<Further>, Option<Gap>)| {
            let figures: Map<String, Value> = figures
                .iter()
                .map(|f| {
                    let figure = json!({ "map": f.map, "images": f.samples });
                    (f.figure.name().to_owned(), figure)
                })
                .collect();
            json!({ "epoch": epoch, "figures": figures, "train_below_validation": gap })
        };
        let loss = |(epoch, loss): &(u32, f64)| json!({ "epoch": epoch, "mean_loss": loss });
        let mut value = json!({
            "format": 1,
            "run_id": self.run_id,
            "ended": self.ended,
            "exit_code": self.exit_code,
            "reason": self.reason,
            "map": self.map,
            "best_map": self.best_map,
            "best_epoch": self.best_epoch,
            "chance_map": self.chance_map,
            "linear_baseline_map": self.linear_baseline_map,
            "per_class": per_class,
            "classes_without_positive": without_positive,
            "at_threshold": metrics.map(|metrics| &metrics.at_threshold),
            "top3": metrics.map(|metrics| &metrics.top3),
            "data": self.data,
            "training_images": self.train_samples,
            "validation_images": self.val_samples,
            "skipped_validation_images": metrics.map_or(0, |metrics| metrics.skipped.len()),
            "epochs": self.epochs,
            "epochs_planned": self.epochs_planned,
            "steps": self.steps,
            "steps_planned": self.steps_planned,
            "images_per_second": self.images_per_second,
            "data_wait_fraction": self.data_wait,
            "seconds": self.seconds,
            "checkpoint": self.checkpoint,
            "best_checkpoint": self.best_checkpoint.as_ref().map(|best| &best.path),
            "best_checkpoint_epoch": self.best_checkpoint.as_ref().and_then(|best| best.epoch),
            "best_checkpoint_map": self.best_checkpoint.as_ref().and_then(|best| best.map),
            "best_has_checkpoint": self.best_has_checkpoint(),
            "evaluations": self.evaluations.iter().map(evaluation).collect::<Vec<_>>(),
            "further_figures": self.further.iter().map(further).collect::<Vec<_>>(),
            "epoch_losses": self.epoch_losses.iter().map(loss).collect::<Vec<_>>(),
            "last": self.last.as_ref().map(whole),
            "best": self.best.as_ref().map(whole),
            "best_definition": BEST_DEFINITION,
        });
        for (name, text) in definitions() {
            value[name] = json!(text);
        }
        value
    }
}
