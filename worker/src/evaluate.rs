//! Scoring a share of an evaluation's rows.

use std::time::{Duration, Instant};

use proto::v1::{self, scoring::Way};
use tch::{Device, Kind, Tensor};

use crate::error::WorkerError;
use crate::rows::RowBatch;
use crate::train::feed::Feed;
use crate::train::replica::Replica;

/// Scores sent in one call at most.
const ROWS_A_CALL: usize = 4096;
/// And how long one waits at most for others to go with it: what is not sent dies with this process.
const MOST_UNSENT: Duration = Duration::from_secs(1);

/// Scores the plan's rows and sends the logits; the coordinator computes every figure. Says whether all were scored: where
/// this rank was asked to end its generation, the rows that are left are for the next one.
///
/// # Errors
/// When a picture cannot be read, the coordinator cannot be reached, or a score is no number.
pub(crate) fn run(
    replica: &mut Replica,
    feed: &mut Feed,
    plan: &v1::EvaluationPlan,
) -> Result<bool, WorkerError> {
    let step = replica.step();
    replica
        .link()
        .now(replica.generation(), step, v1::Activity::Evaluating);
    replica.hold_trunk(plan.epoch)?;
    let requests = &replica.link().inbox.requests;
    let (mut scores, mut all) = (Scores::default(), true);
    let batches = feed.evaluation_batches(&plan.sample_ids);
    // The average takes the weights' place once for all of its rows.
    for part in batches.chunk_by(|a, b| a.way == b.way) {
        let score = |scores: &mut Scores, feed: &mut Feed| {
            for rows in part {
                if requests.end_the_generation() {
                    return Ok(false);
                }
                scores.take(replica, rows, feed)?;
            }
            Ok(true)
        };
        if part.first().is_some_and(|rows| rows.way == Way::ValAverage) {
            all &= replica.held().by_average(|| score(&mut scores, feed))?;
        } else {
            all &= score(&mut scores, feed)?;
        }
    }
    // The next training step has not waited for these.
    let _ = feed.take_waited();
    scores.send(replica)?;
    Ok(all)
}

/// Logits `[B, C]` as float32 on the host, which waits for the device.
///
/// # Errors
/// When the device fails.
pub(crate) fn on_host(logits: &Tensor) -> Result<Vec<f32>, tch::TchError> {
    logits
        .f_to_device(Device::Cpu)?
        .f_to_kind(Kind::Float)?
        .f_flatten(0, -1)?
        .try_into()
}

#[derive(Debug, Default)]
struct Scores {
    rows: Vec<u32>,
    logits: Vec<f32>,
    skipped: Vec<v1::SkippedSample>,
    /// When the first of these was there.
    since: Option<Instant>,
}

impl Scores {
    /// Scores a batch; sends when there is enough, or has been for long enough.
    fn take(
        &mut self,
        replica: &Replica,
        rows: &RowBatch,
        feed: &mut Feed,
    ) -> Result<(), WorkerError> {
        let step = replica.step();
        let batch = feed.batch(step)?;
        let torch = |source| WorkerError::Torch { step, source };
        let skip = |sample: u32, reason: &str| {
            rows.row_of(sample).map(|row| v1::SkippedSample {
                sample_id: row,
                reason: reason.to_owned(),
            })
        };
        if rows.by_batch() && batch.len() == 1 {
            let reason = "no other picture of its batch could be read";
            self.skipped
                .extend(batch.sample_ids.iter().filter_map(|&id| skip(id, reason)));
        } else if batch.len() > 0 {
            let logits = replica.score(&batch, rows.by_batch())?;
            feed.upload_next(step); // on CUDA: beside what the device still computes
            let logits = on_host(&logits).map_err(torch)?; // the host waits for the device
            let classes = logits.len() / batch.len();
            for (&sample, logits) in batch.sample_ids.iter().zip(logits.chunks(classes.max(1))) {
                if logits.iter().any(|logit| logit.is_nan()) {
                    return Err(WorkerError::Diverged { step, sample });
                }
                if let Some(row) = rows.row_of(sample) {
                    self.rows.push(row);
                    self.logits.extend(logits);
                }
            }
        }
        let unreadable = batch.skipped.iter();
        self.skipped
            .extend(unreadable.filter_map(|bad| skip(bad.sample_id, &bad.reason)));
        replica.link().reach("scoring");
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.rows.len() >= ROWS_A_CALL || since.elapsed() >= MOST_UNSENT {
            self.send(replica)?;
        }
        Ok(())
    }

    fn send(&mut self, replica: &Replica) -> Result<(), WorkerError> {
        let Self {
            rows,
            logits,
            skipped,
            ..
        } = std::mem::take(self);
        if rows.is_empty() && skipped.is_empty() {
            return Ok(());
        }
        let (generation, step) = (replica.generation(), replica.step());
        Ok(replica
            .link()
            .scores((generation, step), (&rows, &logits), &skipped, false)?)
    }
}
