//! Training: [`run`] is the loop, on one screen. Everything it needs was set up elsewhere.

pub(crate) mod feed;
pub(crate) mod optimizer;
pub(crate) mod replica;
mod schedule;
mod tally;
pub(crate) mod transform;

use std::time::Instant;

use proto::v1::{self, leaving::Reason, plan_item::Item, session_request::Message};

use crate::error::WorkerError;
use crate::{evaluate, snapshot};
use feed::{DeviceBatch, Feed};
use replica::Replica;
use schedule::Schedule;
use tally::Seen;

/// Works through the plan until it finishes, or all ranks agree to stop.
///
/// A micro-batch goes through forward and backward in one go. The gradients of all ranks are summed while the last
/// backward pass still runs; the tally (loss, requests, batch statistics) follows in one small all-reduce. The decoder's
/// threads work on the next batches all the while.
pub(crate) fn run(
    replica: &mut Replica,
    feed: &mut Feed,
    spec: &v1::TrainSpec,
) -> Result<Reason, WorkerError> {
    let schedule = Schedule::new(spec);
    let mut tally = replica.tally()?;
    loop {
        match feed.next()? {
            Item::Step(plan) => {
                let started = Instant::now();
                let mut report = Report::default();
                replica.begin_step(&plan, &mut tally)?;
                for remaining in (0..plan.micro_batches.len()).rev() {
                    let batch = feed.batch(plan.step)?; // decoded ahead; on CUDA the copy is asynchronous
                    if let Some(batch) = report.usable(batch) {
                        let loss = replica.forward(&batch, &plan, &mut tally)?;
                        replica.backward(&loss, remaining == 0)?; // the last one waits for the sum over all ranks
                    } else if remaining == 0 {
                        replica.backward_nothing()?; // peers wait for this rank's share, even an empty one
                    }
                }
                if plan.micro_batches.is_empty() {
                    replica.backward_nothing()?;
                }
                let (seen, norm) = replica.reduce(&tally)?; // the host waits for the device
                check_finite(plan.step, seen, norm, &report)?;
                let rates = schedule.rates(plan.step);
                replica.commit(rates, &tally, seen, norm)?;
                report.send(replica, &plan, seen, norm, rates, started, feed)?;
                if seen.snapshot {
                    snapshot::take(replica)?;
                }
                if seen.stop {
                    return stop(replica);
                }
            }
            Item::Evaluation(plan) => {
                evaluate::run(replica, feed, &plan)?;
                // Ranks wait for each other here, so that a stop asked for during evaluation is one for all.
                if plan.last && replica.agree_to_stop(&mut tally)? {
                    return stop(replica);
                }
            }
            Item::Snapshot(_) => snapshot::take(replica)?,
            Item::Finish(_) => return finish(replica, Reason::Finished),
        }
    }
}

fn stop(replica: &mut Replica) -> Result<Reason, WorkerError> {
    if replica.link().inbox.requests.stop_with_snapshot() {
        snapshot::take(replica)?;
    }
    finish(replica, Reason::Stopped)
}

/// The last checkpoint must be answered before this worker may go.
fn finish(replica: &mut Replica, reason: Reason) -> Result<Reason, WorkerError> {
    snapshot::settle(replica)?;
    Ok(reason)
}

/// A step that must not be applied: every rank sees the same figures, so every rank refuses it.
fn check_finite(step: u64, seen: Seen, norm: f64, report: &Report) -> Result<(), WorkerError> {
    if seen.loss.is_finite() && norm.is_finite() {
        return Ok(());
    }
    let samples = format!("{:?}", report.sample_ids);
    Err(WorkerError::NotFinite {
        step,
        loss: seen.loss,
        norm,
        samples,
    })
}

/// What this rank did in a step.
#[derive(Debug, Default)]
struct Report {
    sample_ids: Vec<u32>,
    skipped: Vec<v1::SkippedSample>,
}

impl Report {
    /// The batch, unless skipped pictures left it with a single sample, of which batch normalisation has no statistics.
    fn usable(&mut self, mut batch: DeviceBatch) -> Option<DeviceBatch> {
        self.skipped.append(&mut batch.skipped);
        if batch.len() < 2 {
            self.skipped
                .extend(batch.sample_ids.iter().map(|&sample_id| v1::SkippedSample {
                    sample_id,
                    reason: "no other picture of its micro-batch could be read".to_owned(),
                }));
            return None;
        }
        self.sample_ids.extend(&batch.sample_ids);
        Some(batch)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one report has that many figures"
    )]
    fn send(
        self,
        replica: &Replica,
        plan: &v1::StepPlan,
        seen: Seen,
        norm: f64,
        rates: schedule::Rates,
        started: Instant,
        feed: &mut Feed,
    ) -> Result<(), WorkerError> {
        let micros =
            |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let ids: Vec<u8> = self
            .sample_ids
            .iter()
            .flat_map(|id| id.to_le_bytes())
            .collect();
        replica.link().send(Message::Progress(v1::Progress {
            generation: replica.generation(),
            step: plan.step,
            samples: self.sample_ids.len() as u32,
            samples_in_step: plan.samples_in_step,
            loss: seen.loss,
            gradient_norm: norm,
            learning_rate_trunk: rates.trunk,
            learning_rate_head: rates.head,
            step_micros: micros(started.elapsed()),
            data_wait_micros: micros(feed.take_waited()),
            samples_digest: xxhash_rust::xxh3::xxh3_64(&ids),
            state_hash: replica.hash_if_due()?,
            skipped: self.skipped,
        }));
        Ok(())
    }
}
