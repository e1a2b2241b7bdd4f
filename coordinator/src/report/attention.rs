//! The attention of a gat run's checkpoint, measured by a worker: the coordinator knows no tensors.
//!
//! Best effort and bounded in time: a report without heat maps says why it has none. What was measured stays in the run
//! directory, so that a report which is made again need not measure the same checkpoint again.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use data::coco::Split;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::record::Record;
use crate::checkpoint::Checkpoints;
use crate::standing::Standing;

/// Pictures looked at.
const PICTURES: usize = 64;
/// Seconds after which the worker begins no further picture, and after which it is ended.
const SECONDS: u64 = 60;
const PATIENCE: Duration = Duration::from_secs(2 * SECONDS);
/// The last bytes of a worker's complaint that are shown.
const COMPLAINT: usize = 400;

/// Mean attention over pictures. Rows give, columns are given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Maps {
    /// Steps committed before the checkpoint; a worker does not know.
    #[serde(default)]
    pub(super) step: u64,
    /// Pictures that the means are over.
    pub(super) pictures: u32,
    pub(super) groups: Vec<GroupMap>,
    /// `[groups][groups]`
    pub(super) between: Vec<Vec<f64>>,
}

/// The attention within a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GroupMap {
    pub(super) name: String,
    /// In the order of rows and columns.
    pub(super) classes: Vec<String>,
    /// `[classes][classes]`
    pub(super) within: Vec<Vec<f64>>,
}

/// What a report has of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Attention {
    /// The variant has none.
    NotInModel,
    /// Why it was not measured.
    Missing(String),
    /// As it was measured.
    Measured(Maps),
}

/// A measurement to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    step: u64,
    checkpoint: PathBuf,
    pictures: Vec<PathBuf>,
    threads: usize,
    kept: PathBuf,
}

/// What is known already, or the measurement that would tell.
pub(super) fn look(record: &Record) -> Result<Attention, Box<Job>> {
    let missing = |why: String| Ok(Attention::Missing(why));
    let config = match &record.config {
        Ok(config) => config,
        Err(problem) => return missing(format!("the config cannot be read: {problem}")),
    };
    if config.model.graph != "gat" {
        return Ok(Attention::NotInModel);
    }
    let dataset = match &record.dataset {
        Ok(dataset) => dataset,
        Err(problem) => return missing(format!("the data set cannot be read: {problem}")),
    };
    let folder = record.run_dir.join("checkpoints");
    let last = Checkpoints::read_only(folder, config.run.keep_checkpoints).list();
    let last = match last.map(|entries| entries.into_iter().find(|entry| entry.last)) {
        Ok(Some(last)) => last,
        Ok(None) => return missing("there is no checkpoint yet".to_owned()),
        Err(problem) => return missing(format!("the checkpoints cannot be read: {problem}")),
    };
    let kept = record.run_dir.join("attention.json");
    let known: Option<Maps> = std::fs::read(&kept)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    if let Some(maps) = known.filter(|maps| maps.step == last.step && maps.is_whole()) {
        return Ok(Attention::Measured(maps));
    }
    Err(Box::new(Job {
        step: last.step,
        checkpoint: last.path,
        pictures: spread(&dataset.val),
        // Where the run is over its processors are free; one that is under way is to be disturbed little.
        threads: match record.standing {
            Standing::UnderWay => 1,
            _ => std::thread::available_parallelism().map_or(1, NonZero::get),
        },
        kept,
    }))
}

/// Some pictures of the split, evenly spread over it.
fn spread(split: &Split) -> Vec<PathBuf> {
    let all = split.samples.len();
    let chosen = PICTURES.min(all);
    let place = |number: usize| number * all / chosen.max(1);
    let path = |number| split.image_path(u32::try_from(place(number)).unwrap_or(u32::MAX));
    (0..chosen).filter_map(path).collect()
}

impl Maps {
    /// Whether every row has as many weights as there are nodes.
    fn is_whole(&self) -> bool {
        let square =
            |rows: &[Vec<f64>], n: usize| rows.len() == n && rows.iter().all(|row| row.len() == n);
        square(&self.between, self.groups.len())
            && self
                .groups
                .iter()
                .all(|group| square(&group.within, group.classes.len()))
    }
}

impl Job {
    /// Lets a worker measure, on the CPU. Nothing of it is an error of the run.
    pub(crate) async fn measure(&self, worker: &Path) -> Attention {
        match self.ask(worker).await {
            Ok(maps) => {
                // The next report measures again if this cannot be kept.
                if let Ok(text) = serde_json::to_vec(&maps) {
                    let _ = std::fs::write(&self.kept, text);
                }
                Attention::Measured(maps)
            }
            Err(why) => Attention::Missing(why),
        }
    }

    async fn ask(&self, worker: &Path) -> Result<Maps, String> {
        let child = Command::new(worker)
            .arg("attention")
            .arg("--checkpoint")
            .arg(&self.checkpoint)
            .args(["--device", "cpu", "--seconds", &SECONDS.to_string(), "--"])
            .args(&self.pictures)
            .env("OMP_NUM_THREADS", self.threads.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal reaches this process alone, which then ends the worker.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|problem| format!("{} cannot be started: {problem}", worker.display()))?;
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
            .await
            .map_err(|_| {
                format!(
                    "`worker attention` took longer than {} s",
                    PATIENCE.as_secs()
                )
            })?
            .map_err(|problem| format!("`worker attention` was lost: {problem}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.trim().lines().last().unwrap_or_default();
            let said: String = said.chars().take(COMPLAINT).collect();
            return Err(format!(
                "`worker attention` failed ({}): {said}",
                output.status
            ));
        }
        let mut maps: Maps = serde_json::from_slice(&output.stdout)
            .map_err(|problem| format!("`worker attention` gave another answer: {problem}"))?;
        maps.step = self.step;
        if !maps.is_whole() {
            return Err("`worker attention` gave rows that do not fit its nodes".to_owned());
        }
        Ok(maps)
    }
}
