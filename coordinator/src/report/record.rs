//! Everything a report is made of, read from a run directory: of a run that has ended, one that is under way, and one
//! that was killed alike.
//!
//! The store keeps each committed step once: what a failure or a resume made void was dropped when the next generation
//! began. So a curve of these points neither overlaps nor jumps back, and a step that was done again is the one that
//! counts.

use std::path::{Path, PathBuf};

use data::coco::Dataset;
use domain::ledger::Ledger;
use domain::run_plan::{RunPlan, RunShape};
use proto::v1::StepPoint;

use super::ReportError;
use super::events::{self, History};
use crate::config::{Config, Sources};
use crate::evaluation::Evaluated;
use crate::evaluation::kept::{KeptScores, last_scores};
use crate::ledger_record::{LedgerRecord, RecordError, database};
use crate::standing::Standing;
use crate::store::Recorded;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) run_dir: PathBuf,
    pub(super) run_id: String,
    pub(super) standing: Standing,
    pub(super) shape: RunShape,
    pub(super) steps_per_epoch: u32,
    pub(super) ledger: Ledger,
    /// Committed steps, ascending, each once; those that were passed over have no figures and are not among them.
    pub(super) steps: Vec<StepPoint>,
    /// By step, ascending.
    pub(super) evaluations: Vec<Evaluated>,
    /// What happened, in order.
    pub(super) history: History,
    /// The config, or why it cannot be read.
    pub(super) config: Result<Config, String>,
    /// The data set, or why it cannot be read.
    pub(super) dataset: Result<Dataset, String>,
}

impl Record {
    /// Reads a run directory. `dataset` is the run's, where it is known already.
    pub(super) fn read(run_dir: &Path, dataset: Option<&Dataset>) -> Result<Self, ReportError> {
        let path = run_dir.join("run.redb");
        let open = |problem: redb::Error| RecordError::Open {
            path: path.clone(),
            problem: problem.to_string(),
        };
        let database = database(&path).map_err(open)?;
        let LedgerRecord {
            run_id,
            shape,
            ledger,
            ..
        } = LedgerRecord::of(&*database, &path)?;
        let mut recorded = Recorded::read(&*database, &path)?;
        let plan = RunPlan::new(shape, 1).map_err(|problem| RecordError::Content {
            path: path.clone(),
            what: "shape",
            problem: problem.to_string(),
        })?;
        // The ledger is recorded once a second, and steps as they come.
        let newest = recorded.steps.last().map_or(0, |point| point.step + 1);
        let done = ledger.steps_done().max(newest);
        recorded.evaluations.retain(|known| known.step <= done);
        let config = Config::resume(&run_dir.join("config.toml"), &Sources::default())
            .map_err(|mistakes| mistakes.to_string());
        let dataset = match (dataset, &config) {
            (Some(dataset), _) => Ok(dataset.clone()),
            (None, Ok(config)) => Dataset::open(&config.data_paths(), &config.data_options())
                .map_err(|problem| problem.to_string()),
            (None, Err(problem)) => Err(problem.clone()),
        };
        Ok(Self {
            standing: Standing::of(run_dir, recorded.served),
            run_dir: run_dir.to_owned(),
            run_id,
            shape,
            steps_per_epoch: plan.steps_per_epoch(),
            ledger,
            steps: recorded.steps,
            evaluations: recorded.evaluations,
            history: events::read(&run_dir.join("events.jsonl")),
            config,
            dataset,
        })
    }

    /// Committed steps as epochs.
    pub(super) fn epochs(&self, steps: u64) -> f64 {
        steps as f64 / f64::from(self.steps_per_epoch.max(1))
    }

    /// How many steps are committed.
    pub(super) fn steps_done(&self) -> u64 {
        let newest = self.steps.last().map_or(0, |point| point.step + 1);
        self.ledger.steps_done().max(newest)
    }

    /// A class's name, or its number where the data set is out of reach.
    pub(super) fn class_name(&self, class: usize) -> String {
        let known = self.dataset.as_ref().ok();
        let class_of = known.and_then(|dataset| dataset.classes.get(class));
        class_of.map_or_else(|| format!("class {class}"), |class| class.name.clone())
    }

    /// Scores of single images in the last evaluation that has some, or why there are none.
    pub(super) fn scores(&self) -> Result<KeptScores, String> {
        let scores = KeptScores::read(&last_scores(&self.run_dir)).map_err(|e| e.to_string())?;
        let step = scores.about.step;
        if self.evaluations.iter().any(|known| known.step == step) {
            return Ok(scores);
        }
        // Of a state that became void, and the next evaluation replaces them.
        Err(format!(
            "the scores that are kept are of step {step}, which is not in the record"
        ))
    }

    /// The last evaluation with a mAP, and the one with the highest; of equals the earliest.
    pub(super) fn last_and_best(&self) -> (Option<&Evaluated>, Option<&Evaluated>) {
        let map = |known: &Evaluated| known.metrics.average_precision.map;
        let best = self.evaluations.iter().filter(|known| map(known).is_some());
        let best = best.fold(None, |best: Option<&Evaluated>, known| match best {
            Some(best) if map(best) >= map(known) => Some(best),
            _ => Some(known),
        });
        (self.evaluations.last(), best)
    }
}
