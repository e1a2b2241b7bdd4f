//! The report of a run: a page that needs nothing but a browser, tables for programs, and TensorBoard's event file.
//!
//! Made from the run directory alone, so it can be made again at any time, of a run that has ended, is under way, or was
//! killed. Every figure is of committed steps: what a failure made void is not in the store any more.
//!
//! ```text
//! run.redb, events.jsonl, config.toml, summary.json ─ record ─┬─ csv, tensorboard
//! data set, scores of single images ─ scores, mistakes ───────┼─ page (curves, classes, heat, timeline …)
//! worker attention ─ attention ───────────────────────────────┘
//! ```
//!
//! Must not know: how anything here came about; it only reads.

mod attention;
mod board;
mod calibration;
mod classes;
mod csv;
mod curves;
mod events;
mod header;
mod heat;
mod mistakes;
mod page;
mod plot;
mod precision_recall;
mod record;
mod scores;
mod tensorboard;
mod thin;
mod timeline;

use std::io;
use std::path::{Path, PathBuf};

use data::coco::Dataset;

pub(crate) use attention::{Attention, Job};
pub(crate) use board::Board;

use crate::evaluation::kept::KeptScores;
use crate::ledger_record::RecordError;
use crate::run_dir::{RunDirError, replace_bytes};
use crate::store::StoreError;
use mistakes::Worst;
use record::Record;

/// Why there is no report. Texts say what to do.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The run's durable record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The steps and evaluations in it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] RunDirError),
    /// The folder of event files.
    #[error("{path} cannot be made or read ({problem}): make room, or check who owns it")]
    Folder {
        /// `tb`.
        path: PathBuf,
        /// What the operating system says.
        problem: io::Error,
    },
}

/// What a report is made of, read once.
#[derive(Debug)]
pub struct Material {
    record: Record,
    /// Of the last evaluation, or why there are none.
    scores: Result<KeptScores, String>,
    worst: Worst,
}

impl Material {
    /// Reads a run directory. `dataset` is the run's, where it is known already. Blocks.
    ///
    /// # Errors
    /// [`ReportError`] if no run has begun there.
    pub(crate) fn gather(run_dir: &Path, dataset: Option<&Dataset>) -> Result<Self, ReportError> {
        let record = Record::read(run_dir, dataset)?;
        let scores = record.scores();
        let worst = match (&scores, &record.dataset) {
            (Ok(scores), Ok(dataset)) => Worst::of(scores, &dataset.val),
            _ => Worst::default(),
        };
        Ok(Self {
            record,
            scores,
            worst,
        })
    }

    /// What is known of the model's attention, or the measurement that would tell.
    pub(crate) fn attention(&self) -> Result<Attention, Box<Job>> {
        attention::look(&self.record)
    }

    /// Writes the page, the tables and the event file, which replaces any before; gives the page's path. Blocks.
    ///
    /// # Errors
    /// [`ReportError`] if a file cannot be written.
    pub(crate) fn write(&self, attention: &Attention) -> Result<PathBuf, ReportError> {
        let record = &self.record;
        let file = |name: &str| record.run_dir.join(name);
        let steps = csv::steps(&record.steps, record.steps_per_epoch);
        replace_bytes(&file("history.csv"), steps.as_bytes())?;
        let evaluations = csv::evaluations(&record.evaluations);
        replace_bytes(&file("evaluations.csv"), evaluations.as_bytes())?;
        let folder = file("tb");
        board::write(&folder, &record.steps, &record.evaluations).map_err(|problem| {
            ReportError::Folder {
                path: folder,
                problem,
            }
        })?;
        let page = file("report.html");
        replace_bytes(&page, page::page(self, attention).as_bytes())?;
        Ok(page)
    }
}

#[cfg(test)]
mod tests;
