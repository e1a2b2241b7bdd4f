//! A run's durable record of what was trained on, read without its coordinator and checked against the plan, the split
//! and what each rank says it did.
//!
//! The plan alone would prove nothing: a rank that trained on other samples than it was given would agree with it. So
//! each rank reports a digest of the sample ids it decoded and applied, and a step counts only where these are the
//! digests of the plan's samples.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use domain::ledger::{Generation, Ledger, Verification};
use domain::run_plan::{RunPlan, RunShape};
use redb::{ReadOnlyDatabase, ReadableDatabase, ReadableTable};
use serde::Serialize;

use crate::store::{DIGESTS, LEDGER, META, RUN_ID, SHAPE};

/// Mismatches that a check names; counts are whole.
const NAMED: usize = 10;
/// How often a database that is being written is copied until a copy is whole.
const COPIES: usize = 20;

/// Why the record cannot be read. Texts say what to do.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file is not there, or is no record.
    #[error("{path} cannot be read ({problem}): name the directory of a run that has begun")]
    Open {
        /// `run.redb`.
        path: PathBuf,
        /// What redb says.
        problem: String,
    },
    /// Something in it is missing or cannot be understood.
    #[error(
        "{path} holds no {what} that can be read ({problem}): read it with the version that wrote it"
    )]
    Content {
        /// `run.redb`.
        path: PathBuf,
        /// Which part.
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// The database as it is at this moment. One that a coordinator writes, or left behind when it was killed, is copied
/// first: the copy is put right as a coordinator would, and what is read was whole at some moment.
pub(crate) fn database(path: &Path) -> Result<Box<dyn ReadableDatabase>, redb::Error> {
    /// Tells copies of one process apart.
    static COPY: AtomicU64 = AtomicU64::new(0);
    let problem = match ReadOnlyDatabase::open(path) {
        Ok(database) => return Ok(Box::new(database)),
        Err(problem) => problem,
    };
    for _ in 0..COPIES {
        let (process, number) = (std::process::id(), COPY.fetch_add(1, Ordering::Relaxed));
        let copy = std::env::temp_dir().join(format!("hgat-ledger-{process}-{number}.redb"));
        let copied = std::fs::copy(path, &copy);
        let whole = copied.map_err(redb::Error::from).and_then(|_| {
            let mut database = redb::Database::open(&copy)?;
            // A copy taken in the middle of a write may hold pages of two moments; their checksums tell.
            database.check_integrity()?;
            Ok(Box::new(database) as Box<dyn ReadableDatabase>)
        });
        // The open file stays readable.
        let _ = std::fs::remove_file(&copy);
        if whole.is_ok() {
            return whole;
        }
    }
    Err(problem.into())
}

/// What was recorded.
#[derive(Debug, Clone)]
pub struct LedgerRecord {
    /// The run's name.
    pub run_id: String,
    /// What the run does and in which order.
    pub shape: RunShape,
    /// The lineage.
    pub ledger: Ledger,
    /// By (step, rank): (generation, digest of the sample ids that the rank says it applied).
    pub digests: BTreeMap<(u64, u32), (u64, u64)>,
}

/// A rank that says it trained on something else than it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The step.
    pub step: u64,
    /// The rank, in the generation that owns the step.
    pub rank: u32,
    /// That generation.
    pub generation: u64,
}

/// Whether the record is what it must be.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Every epoch's samples counted against the split.
    pub verification: Verification,
    /// (step, rank) pairs of committed steps whose digest is the plan's.
    pub ranks_confirmed: u64,
    /// Those without a report: the rank died right after the step, or before its word came through.
    pub ranks_unreported: u64,
    /// Those whose digest is another.
    pub ranks_contradicting: u64,
    /// The first few of them.
    pub first_contradicting: Vec<Mismatch>,
}

impl Check {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.verification.holds() && self.ranks_contradicting == 0
    }
}

/// A committed step that changed nothing, because its loss or gradient was not finite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    /// The step.
    pub step: u64,
    /// What all ranks took through it.
    pub samples: Vec<u32>,
}

impl LedgerRecord {
    /// Reads `run.redb` of a run, whether its coordinator runs, has ended, or was killed.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn read(run_dir: &Path) -> Result<Self, RecordError> {
        let path = run_dir.join("run.redb");
        let open = |problem: redb::Error| RecordError::Open {
            path: path.clone(),
            problem: problem.to_string(),
        };
        let database = database(&path).map_err(&open)?;
        Self::of(&*database, &path)
    }

    /// Reads an open record; `path` names it in errors.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) fn of(database: &dyn ReadableDatabase, path: &Path) -> Result<Self, RecordError> {
        let open = |problem: redb::Error| RecordError::Open {
            path: path.to_owned(),
            problem: problem.to_string(),
        };
        let content = |what, problem: String| RecordError::Content {
            path: path.to_owned(),
            what,
            problem,
        };
        let transaction = database.begin_read().map_err(|e| open(e.into()))?;
        let meta = transaction.open_table(META).map_err(|e| open(e.into()))?;
        let value = |key: &'static str| -> Result<Vec<u8>, RecordError> {
            match meta.get(key).map_err(|e| open(e.into()))? {
                Some(value) => Ok(value.value().to_vec()),
                None => Err(content(key, "it was never written".to_owned())),
            }
        };
        let run_id = String::from_utf8_lossy(&value(RUN_ID)?).into_owned();
        let shape = serde_json::from_slice(&value(SHAPE)?);
        let shape = shape.map_err(|e| content("shape", e.to_string()))?;
        let ledger = match value(LEDGER) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|e| content("ledger", e.to_string()))?
            }
            // No generation has begun.
            Err(_) => Ledger::new(),
        };
        let mut digests = BTreeMap::new();
        let table = transaction
            .open_table(DIGESTS)
            .map_err(|e| open(e.into()))?;
        for entry in table.iter().map_err(|e| open(e.into()))? {
            let (key, value) = entry.map_err(|e| open(e.into()))?;
            digests.insert(key.value(), value.value());
        }
        Ok(Self {
            run_id,
            shape,
            ledger,
            digests,
        })
    }

    /// Counts every sample of every epoch, and compares every rank's word with the plan.
    ///
    /// # Errors
    /// The first of [`RunShape::mistakes`]: the record is of no run.
    pub fn check(&self) -> Result<Check, domain::plan::PlanError> {
        let plan = RunPlan::new(self.shape, 1)?;
        let mut check = Check {
            verification: self.ledger.verify(&plan),
            ranks_confirmed: 0,
            ranks_unreported: 0,
            ranks_contradicting: 0,
            first_contradicting: Vec::new(),
        };
        for generation in self.ledger.generations() {
            self.check_generation(&plan, generation, &mut check)?;
        }
        Ok(check)
    }

    /// The steps that changed nothing, with their samples.
    #[must_use]
    pub fn passed_over(&self) -> Vec<PassedOver> {
        let Ok(plan) = RunPlan::new(self.shape, 1) else {
            return Vec::new();
        };
        let samples = |step| {
            let epoch = plan.epoch_plan(plan.epoch_of(step));
            epoch.samples_of_step(plan.step_in_epoch(step)).to_vec()
        };
        let steps = self.ledger.passed_over().iter();
        steps
            .map(|&step| PassedOver {
                step,
                samples: samples(step),
            })
            .collect()
    }

    fn check_generation(
        &self,
        plan: &RunPlan,
        generation: &Generation,
        check: &mut Check,
    ) -> Result<(), domain::plan::PlanError> {
        let Some(committed) = generation.committed else {
            return Ok(());
        };
        let steps = committed.first..committed.end().min(plan.total_steps());
        let assignment = generation.assignment();
        for rank in 0..assignment.world_size() {
            for planned in plan.rank_steps(steps.clone(), rank, &assignment)? {
                let step = planned.step;
                let ids = planned
                    .micro_batches
                    .iter()
                    .flat_map(|batch| &batch.sample_ids);
                let trained = ids
                    .copied()
                    .filter(|&sample| !self.is_skipped(step, sample));
                let expected = proto::samples_digest(trained);
                match self.digests.get(&(step, rank)) {
                    Some(&(number, digest)) if number == generation.number => {
                        if digest == expected {
                            check.ranks_confirmed += 1;
                            continue;
                        }
                        check.ranks_contradicting += 1;
                        if check.first_contradicting.len() < NAMED {
                            check.first_contradicting.push(Mismatch {
                                step,
                                rank,
                                generation: number,
                            });
                        }
                    }
                    _ => check.ranks_unreported += 1,
                }
            }
        }
        Ok(())
    }

    fn is_skipped(&self, step: u64, sample: u32) -> bool {
        let key = |known: &domain::ledger::SkippedSample| (known.step, known.sample);
        let skipped = self.ledger.skipped();
        skipped.binary_search_by_key(&(step, sample), key).is_ok()
    }
}
