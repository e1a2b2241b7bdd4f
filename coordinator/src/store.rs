//! What must outlive the coordinator, in `run.redb`: the highest generation number, the ledger, and the history of
//! steps and evaluations.
//!
//! A thread of its own writes in batches, so that no step waits for the disk. What must be on disk before anyone acts
//! on it (a generation's number) is waited for. Losing the last batch loses no truth: a run resumes from a checkpoint,
//! the store is flushed before one is committed, and what lies beyond it is void.
//!
//! Must not know: what a generation means, or when one may begin.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use domain::ledger::Ledger;
use domain::run::LossClass;
use domain::run_plan::RunShape;
use proto::v1::StepPoint;
use redb::{Database, ReadableDatabase, TableDefinition};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::evaluation::Evaluated;

mod read;
mod write;

pub(crate) use read::is_served;
use read::{Prepared, prepare, read};
use write::{Write, write_batches};

pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// By step: an encoded `StepPoint`.
const STEPS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("steps");
/// By the steps committed before it: an [`Evaluated`] in JSON.
const EVALUATIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("evaluations");

/// By (step, rank): (generation, digest of the sample ids that the rank says it decoded and applied).
pub(crate) const DIGESTS: TableDefinition<'_, (u64, u32), (u64, u64)> =
    TableDefinition::new("digests");

/// By (step, sample), while the evaluation has no figures: logits as little-endian floats; none: it was skipped.
const SCORES: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("scores");

const GENERATION: &str = "generation";
pub(crate) const LEDGER: &str = "ledger";
pub(crate) const RUN_ID: &str = "run_id";
/// Present while a coordinator serves the run: found at a start, it says that the one before was lost.
const SERVED: &str = "served";
/// The failures that count against a budget, in JSON: [`Loss`]es. Gone with a run that ended in order, after which a
/// person has looked at it.
const LOSSES: &str = "losses";
/// Into how many parts micro-batches are cut, a little-endian u32; gone in the same way.
const PARTS: &str = "forward_parts";
/// A [`RunShape`] in JSON: without it the ledger's steps could not be counted as samples.
pub(crate) const SHAPE: &str = "shape";

/// Writes that may wait for the disk; a sender beyond that waits with them.
const QUEUE: usize = 4096;
/// Writes in one transaction.
const BATCH: usize = 1024;

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or read.
    #[error("cannot open {path}: {problem}; if another coordinator serves this run, stop it first")]
    Open {
        /// `run.redb`.
        path: PathBuf,
        /// What redb says.
        problem: String,
    },
    /// It belongs to another run.
    #[error("{path} belongs to run {found}, not {wanted}: give every run its own --run-dir")]
    OtherRun {
        /// `run.redb`.
        path: PathBuf,
        /// The run it was made for.
        found: String,
        /// The run to be served.
        wanted: String,
    },
    /// Something in it cannot be understood.
    #[error(
        "{path} holds a {what} that cannot be read ({problem}): resume with the version that wrote it"
    )]
    Content {
        /// `run.redb`.
        path: PathBuf,
        /// Which part.
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A write failed.
    #[error("cannot write {path}: {problem}; make room on this disk and resume with --resume")]
    Write {
        /// `run.redb`.
        path: PathBuf,
        /// What redb says.
        problem: String,
    },
}

/// What the store held when it was opened.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// The highest generation number used; 0: none.
    pub generation: u64,
    /// The lineage so far.
    pub ledger: Ledger,
    /// Committed steps, in order.
    pub steps: Vec<StepPoint>,
    /// Evaluations, in order.
    pub evaluations: Vec<Evaluated>,
    /// Scores of evaluations that have no figures yet: by (step, sample) the logits, or that the sample was skipped.
    pub scores: BTreeMap<(u64, u32), Option<Vec<f32>>>,
    /// Whether the coordinator before was lost in the middle of its newest generation, whose members may be alive: then
    /// nothing was dropped.
    pub left_behind: bool,
    /// Whether a coordinator serves the run, or was lost while it did.
    pub served: bool,
    /// Whether the coordinator before was lost.
    pub lost: bool,
    /// The failures of its last hour that count against a budget.
    pub losses: Vec<Loss>,
    /// Into how many parts it had micro-batches cut; 0: not known.
    pub forward_parts: u32,
}

impl Recorded {
    /// Everything that an open store holds; `path` names it in errors.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn read(database: &dyn ReadableDatabase, path: &Path) -> Result<Self, StoreError> {
        read(database, path, u64::MAX)
    }
}

/// What is done with what an earlier coordinator has recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// The run goes on at this step: what lies beyond is void.
    At(u64),
    /// If the coordinator before was lost, its workers may be training still and nothing is void yet; else the run goes
    /// on at this step.
    WithWorkersOr(u64),
}

/// A failure that counts against a budget, and when it was by the wall clock: the only one that two processes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Against which.
    pub class: LossClass,
    /// Milliseconds since 1970.
    pub unix_millis: u64,
}

/// What a rank says it trained on in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// The step.
    pub step: u64,
    /// The rank that reports.
    pub rank: u32,
    /// In which generation.
    pub generation: u64,
    /// [`proto::samples_digest`] of the sample ids it decoded and applied.
    pub digest: u64,
}

/// Scores of some samples of the state after `step` steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Steps committed before.
    pub step: u64,
    /// The samples.
    pub sample_ids: Vec<u32>,
    /// `[sample_ids, classes]`.
    pub logits: Vec<f32>,
    /// Samples that could not be read.
    pub skipped: Vec<u32>,
}

/// The store, open for writing.
#[derive(Debug)]
pub struct Store {
    writes: Option<mpsc::SyncSender<Write>>,
    writer: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl Store {
    /// Opens or makes the store of the run `run_id` and reads what it holds. Blocks.
    ///
    /// `resume` says where the run goes on: recorded steps from there on are void and dropped, evaluations beyond are
    /// left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(path: &Path, run_id: &str, resume: Resume) -> Result<(Self, Recorded), StoreError> {
        let failed = |problem: redb::Error| StoreError::Open {
            path: path.to_owned(),
            problem: problem.to_string(),
        };
        let database = Database::create(path).map_err(|e| failed(e.into()))?;
        let (begins_at_step, lost) = match prepare(&database, run_id, resume).map_err(failed)? {
            Prepared::OtherRun(found) => {
                return Err(StoreError::OtherRun {
                    path: path.to_owned(),
                    found,
                    wanted: run_id.to_owned(),
                });
            }
            Prepared::LeftBehind => (None, true),
            Prepared::At { step, lost } => (Some(step), lost),
        };
        let mut recorded = read(&database, path, begins_at_step.unwrap_or(u64::MAX))?;
        recorded.left_behind = begins_at_step.is_none();
        recorded.lost = lost;
        let (writes, queue) = mpsc::sync_channel(QUEUE);
        let own_path = path.to_owned();
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write_batches(database, &queue, &own_path))
            .map_err(|e| StoreError::Open {
                path: path.to_owned(),
                problem: e.to_string(),
            })?;
        let store = Self {
            writes: Some(writes),
            writer: Some(writer),
            path: path.to_owned(),
        };
        Ok((store, recorded))
    }

    /// Makes a new generation durable; when this returns, its number is never used again.
    ///
    /// # Errors
    /// [`StoreError::Write`].
    pub async fn begin_generation(&self, number: u64, ledger: &Ledger) -> Result<(), StoreError> {
        let (done, wait) = oneshot::channel();
        self.send(Write::Generation(
            number,
            Box::new(ledger.clone()),
            Some(done),
        ));
        wait.await.unwrap_or_else(|_| Err(self.writer_gone()))
    }

    /// Records a failure that counts against a budget; written with the next batch.
    pub fn loss(&self, loss: Loss) {
        self.send(Write::Loss(loss));
    }

    /// Records into how many parts micro-batches are cut; written with the next batch.
    pub fn forward_parts(&self, parts: u32) {
        self.send(Write::Parts(parts));
    }

    /// Records what the run does and in which order; written with the next batch.
    pub fn shape(&self, shape: RunShape) {
        self.send(Write::Shape(shape));
    }

    /// Records a committed step; written with the next batch.
    pub fn step(&self, point: StepPoint) {
        self.send(Write::Step(point));
    }

    /// Records the ledger; written with the next batch.
    pub fn ledger(&self, ledger: &Ledger) {
        self.send(Write::Ledger(Box::new(ledger.clone())));
    }

    /// Records scores of an evaluation under way; written with the next batch.
    pub fn scores(&self, scores: Scores) {
        self.send(Write::Scores(Box::new(scores)));
    }

    /// Records that the run has come to an end that nobody has to pick up; on disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::Write`].
    pub async fn end(&self) -> Result<(), StoreError> {
        self.send(Write::End);
        self.flush().await
    }

    /// Records an evaluation; written with the next batch.
    pub fn evaluation(&self, evaluated: &Evaluated) {
        self.send(Write::Evaluation(Box::new(evaluated.clone())));
    }

    /// Records what a rank trained on; written with the next batch.
    pub fn digest(&self, digest: Digest) {
        self.send(Write::Digest(digest));
    }

    /// Drops the steps from `step` on, and evaluations of states beyond it; written with the next batch.
    pub fn void_from(&self, step: u64) {
        self.send(Write::Void(step));
    }

    /// Waits until everything recorded so far is on disk.
    ///
    /// # Errors
    /// [`StoreError::Write`] if something could not be written; it is tried again with what follows.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let wait = self.flush_later();
        wait.await.unwrap_or_else(|_| Err(self.writer_gone()))
    }

    /// Like [`Store::flush`], for whoever waits elsewhere.
    #[must_use]
    pub fn flush_later(&self) -> oneshot::Receiver<Result<(), StoreError>> {
        let (done, wait) = oneshot::channel();
        self.flush_to(done);
        wait
    }

    /// Tells `done` once everything recorded so far is on disk, or could not be written.
    pub fn flush_to(&self, done: oneshot::Sender<Result<(), StoreError>>) {
        self.send(Write::Flush(Some(done)));
    }

    fn send(&self, write: Write) {
        if let Some(writes) = &self.writes {
            // The writer lives as long as the store; if it died, the next flush says so.
            let _ = writes.send(write);
        }
    }

    fn writer_gone(&self) -> StoreError {
        StoreError::Write {
            path: self.path.clone(),
            problem: "its writer has stopped".to_owned(),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.writes = None;
        if let Some(writer) = self.writer.take() {
            // It ends once the queue is empty; a panic in it was reported by its own hook.
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(step: u64) -> StepPoint {
        StepPoint {
            step,
            loss: 0.5,
            ..StepPoint::default()
        }
    }

    #[tokio::test]
    async fn what_was_flushed_is_there_again_and_void_steps_are_not() {
        // Given a store with three steps under generation 4
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.redb");
        let (store, recorded) = Store::open(&path, "r", Resume::At(0)).unwrap();
        assert_eq!(recorded.generation, 0);
        let mut ledger = Ledger::new();
        ledger
            .begin_generation(
                4,
                0,
                vec!["worker-0".to_owned()],
                domain::shares::Shares::even(1),
            )
            .unwrap();
        store.begin_generation(4, &ledger).await.unwrap();
        for step in 0..3 {
            ledger.commit_through(4, step).unwrap();
            store.step(point(step));
            store.ledger(&ledger);
        }
        store.flush().await.unwrap();
        drop(store);

        // When the run goes on from step 2
        let (_store, recorded) = Store::open(&path, "r", Resume::At(2)).unwrap();

        // Then the third step is void in the history, and the ledger still knows of it
        assert_eq!(recorded.generation, 4);
        assert_eq!(recorded.steps, [point(0), point(1)]);
        assert_eq!(recorded.ledger.steps_done(), 3);
    }

    #[tokio::test]
    async fn a_store_of_another_run_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.redb");
        drop(Store::open(&path, "mine", Resume::At(0)).unwrap());
        let error = Store::open(&path, "yours", Resume::At(0)).unwrap_err();
        assert!(matches!(error, StoreError::OtherRun { .. }), "{error}");
    }
}
