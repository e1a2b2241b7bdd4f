//! The thread that writes: whatever has gathered, in one transaction.

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use domain::ledger::Ledger;
use domain::run::BUDGET_WINDOW;
use domain::run_plan::RunShape;
use prost::Message as _;
use proto::v1::StepPoint;
use redb::{Database, ReadableTable};
use tokio::sync::oneshot;

use super::{
    BATCH, DIGESTS, Digest, EVALUATIONS, GENERATION, LEDGER, LOSSES, Loss, META, PARTS, SCORES,
    SERVED, SHAPE, STEPS, Scores, StoreError,
};
use crate::evaluation::Evaluated;

/// Who waits for a write to be on disk.
type Done = oneshot::Sender<Result<(), StoreError>>;

/// Something to be written.
pub(super) enum Write {
    Generation(u64, Box<Ledger>, Option<Done>),
    Step(StepPoint),
    Ledger(Box<Ledger>),
    Evaluation(Box<Evaluated>),
    Void(u64),
    Digest(Digest),
    Shape(RunShape),
    Loss(Loss),
    Parts(u32),
    Scores(Box<Scores>),
    End,
    Flush(Option<Done>),
}

/// How long after a failure a further try waits: it opens the file anew, which reads it.
const TRY_AGAIN: Duration = Duration::from_millis(500);

impl Write {
    /// Whether somebody waits for it to be on disk.
    fn is_waited_for(&self) -> bool {
        matches!(self, Self::Generation(_, _, Some(_)) | Self::Flush(Some(_)))
    }

    /// Who waits for it to be on disk, once.
    fn waiting(&mut self) -> Option<Done> {
        match self {
            Self::Generation(_, _, done) | Self::Flush(done) => done.take(),
            _ => None,
        }
    }
}

/// The writer's life: one transaction for whatever has gathered.
///
/// After a failure, such as a full disk, the database is opened anew (redb refuses to go on) and what could not be
/// written is tried again with what follows: nothing of the record is lost for good while this process lives. Whoever
/// waits is told of the failure at once.
pub(super) fn write_batches(database: Database, queue: &mpsc::Receiver<Write>, path: &Path) {
    let mut database = Some(database);
    let mut kept: Vec<Write> = Vec::new();
    let mut failed_at: Option<Instant> = None;
    loop {
        let next = if kept.is_empty() {
            queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            queue.recv_timeout(TRY_AGAIN)
        };
        let over = matches!(next, Err(RecvTimeoutError::Disconnected));
        kept.extend(next.ok());
        while kept.len() < BATCH {
            match queue.try_recv() {
                Ok(write) => kept.push(write),
                Err(_) => break,
            }
        }
        let wanted = over || kept.iter().any(Write::is_waited_for);
        let rested = failed_at.is_none_or(|at| at.elapsed() >= TRY_AGAIN);
        if kept.is_empty() || !(wanted || rested) {
            if over {
                return;
            }
            continue;
        }
        let written = reopen(&mut database, path).and_then(|database| write_batch(database, &kept));
        if let Err(problem) = &written {
            tracing::warn!(path = %path.display(), %problem, "the store cannot be written");
            database = None;
        }
        failed_at = written.is_err().then(Instant::now);
        for done in kept.iter_mut().filter_map(Write::waiting) {
            let _ = done.send(written.as_ref().map_or_else(
                |problem| {
                    Err(StoreError::Write {
                        path: path.to_owned(),
                        problem: problem.to_string(),
                    })
                },
                |()| Ok(()),
            ));
        }
        if written.is_ok() {
            kept.clear();
        }
        if over {
            return;
        }
    }
}

/// The database, opened if it is not.
fn reopen<'a>(
    database: &'a mut Option<Database>,
    path: &Path,
) -> Result<&'a Database, redb::Error> {
    let open = match database.take() {
        Some(open) => open,
        None => Database::create(path)?,
    };
    Ok(database.insert(open))
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
                    // Its scores have done their work. One before it may still be waiting for its figures.
                    let own = (evaluated.step, 0)..(evaluated.step + 1, 0);
                    scores.retain_in(own, |_, _| false)?;
                }
                Write::Scores(given) => write_scores(&mut scores, given)?,
                Write::End => {
                    for key in [SERVED, LOSSES, PARTS] {
                        meta.remove(key)?;
                    }
                }
                Write::Loss(loss) => {
                    let known = meta.get(LOSSES)?.map(|known| known.value().to_vec());
                    let losses = add_loss(known, *loss);
                    meta.insert(LOSSES, json(&losses)?.as_slice())?;
                }
                Write::Parts(parts) => {
                    meta.insert(PARTS, parts.to_le_bytes().as_slice())?;
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

/// The losses that are known, as far as they still count, and one more.
fn add_loss(known: Option<Vec<u8>>, loss: Loss) -> Vec<Loss> {
    let mut losses: Vec<Loss> = known
        .and_then(|known| serde_json::from_slice(&known).ok())
        .unwrap_or_default();
    let counts =
        |known: &Loss| loss.unix_millis.saturating_sub(known.unix_millis) < BUDGET_WINDOW.0;
    losses.retain(counts);
    losses.push(loss);
    losses
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
