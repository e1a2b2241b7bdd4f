//! The thread that writes: whatever has gathered, in one transaction.

use std::path::Path;
use std::sync::mpsc;

use domain::ledger::Ledger;
use domain::run_plan::RunShape;
use prost::Message as _;
use proto::v1::StepPoint;
use redb::Database;
use tokio::sync::oneshot;

use super::{
    BATCH, DIGESTS, Digest, EVALUATIONS, GENERATION, LEDGER, META, SCORES, SERVED, SHAPE, STEPS,
    Scores, StoreError,
};
use crate::evaluation::Evaluated;

/// Something to be written.
pub(super) enum Write {
    Generation(u64, Box<Ledger>, oneshot::Sender<Result<(), StoreError>>),
    Step(StepPoint),
    Ledger(Box<Ledger>),
    Evaluation(Box<Evaluated>),
    Void(u64),
    Digest(Digest),
    Shape(RunShape),
    Scores(Box<Scores>),
    End,
    Flush(oneshot::Sender<Result<(), StoreError>>),
}

/// The writer's life: one transaction for whatever has gathered.
pub(super) fn write_batches(database: &Database, queue: &mpsc::Receiver<Write>, path: &Path) {
    let mut first_problem: Option<String> = None;
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH {
            match queue.try_recv() {
                Ok(write) => batch.push(write),
                Err(_) => break,
            }
        }
        if let Err(problem) = write_batch(database, &batch) {
            tracing::warn!(path = %path.display(), %problem, "the store cannot be written");
            first_problem.get_or_insert(problem.to_string());
        }
        for write in batch {
            if let Write::Generation(_, _, done) | Write::Flush(done) = write {
                let result = match first_problem.take() {
                    Some(problem) => Err(StoreError::Write {
                        path: path.to_owned(),
                        problem,
                    }),
                    None => Ok(()),
                };
                let _ = done.send(result);
            }
        }
    }
}

fn write_batch(database: &Database, batch: &[Write]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let mut steps = transaction.open_table(STEPS)?;
        let mut evaluations = transaction.open_table(EVALUATIONS)?;
        let mut digests = transaction.open_table(DIGESTS)?;
        let mut scores = transaction.open_table(SCORES)?;
        for write in batch {
            match write {
                Write::Generation(number, ledger, _) => {
                    meta.insert(GENERATION, number.to_le_bytes().as_slice())?;
                    meta.insert(LEDGER, json(ledger)?.as_slice())?;
                }
                Write::Step(point) => {
                    steps.insert(point.step, point.encode_to_vec().as_slice())?;
                }
                Write::Ledger(ledger) => {
                    meta.insert(LEDGER, json(ledger)?.as_slice())?;
                }
                Write::Evaluation(evaluated) => {
                    evaluations.insert(evaluated.step, json(evaluated)?.as_slice())?;
                    // Its scores have done their work, and so have all before.
                    scores.retain_in(..(evaluated.step + 1, 0), |_, _| false)?;
                }
                Write::Scores(given) => write_scores(&mut scores, given)?,
                Write::End => {
                    meta.remove(SERVED)?;
                }
                Write::Void(step) => {
                    steps.retain_in(*step.., |_, _| false)?;
                    evaluations.retain_in(step.saturating_add(1).., |_, _| false)?;
                    digests.retain_in((*step, 0).., |_, _| false)?;
                    scores.retain_in((step.saturating_add(1), 0).., |_, _| false)?;
                }
                Write::Digest(Digest {
                    step,
                    rank,
                    generation,
                    digest,
                }) => {
                    digests.insert((*step, *rank), (*generation, *digest))?;
                }
                Write::Shape(shape) => {
                    meta.insert(SHAPE, json(shape)?.as_slice())?;
                }
                Write::Flush(_) => {}
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn write_scores(
    table: &mut redb::Table<'_, (u64, u32), &[u8]>,
    given: &Scores,
) -> Result<(), redb::Error> {
    let classes = given.logits.len() / given.sample_ids.len().max(1);
    let rows = given.logits.chunks(classes.max(1));
    for (&sample, row) in given.sample_ids.iter().zip(rows) {
        let bytes: Vec<u8> = row.iter().flat_map(|logit| logit.to_le_bytes()).collect();
        table.insert((given.step, sample), bytes.as_slice())?;
    }
    for &sample in &given.skipped {
        table.insert((given.step, sample), [].as_slice())?;
    }
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(value).map_err(|e| redb::Error::Io(std::io::Error::other(e)))
}
