//! Training: [`run`] is the loop, on one screen. Everything it needs was set up elsewhere.

pub(crate) mod average;
pub(crate) mod feed;
pub(crate) mod online;
pub(crate) mod optimizer;
pub(crate) mod replica;
pub(crate) mod restore;
mod schedule;
mod tally;
pub(crate) mod transfer;
pub(crate) mod transform;
mod witness;

use std::time::{Duration, Instant};

use model::loss::Loss;
use proto::v1::{self, plan_item::Item, session_request::Message};

use crate::error::WorkerError;
use crate::{evaluate, snapshot};
use feed::{DeviceBatch, Feed};
use online::Online;
use replica::Replica;
use schedule::Schedule;
use tally::Seen;

/// What `train.loss` names.
fn loss(spec: &v1::TrainSpec, model: &model::HgatFc) -> Result<Loss, WorkerError> {
    Ok(match spec.loss.as_str() {
        "bce" => Loss::Bce,
        "deepmar" => {
            let like = model.running_statistics();
            let (positive, negative) = (&spec.positive_weights, &spec.negative_weights);
            Loss::deepmar(positive, negative, like.kind(), like.device())?
        }
        "asl" => Loss::Asymmetric {
            gamma_positive: spec.asl_gamma_positive,
            gamma_negative: spec.asl_gamma_negative,
            clip: spec.asl_clip,
            weight_gradient: spec.asl_weight_gradient,
        },
        _ => Loss::MultilabelSoftMargin,
    })
}

/// Where the work in a generation came to an end that all its ranks agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The plan's end.
    Finished,
    /// A stop was asked for.
    Stopped,
    /// Others come in, or someone goes: another generation follows.
    Boundary,
}

/// Works through the plan until it finishes, or all ranks agree to stop or to regroup.
///
/// A micro-batch goes through forward and backward in one go. The gradients of all ranks are summed while the last
/// backward pass still runs; the tally (loss, requests, batch statistics) follows in one small all-reduce. The decoder's
/// threads work on the next batches all the while.
pub(crate) fn run(
    replica: &mut Replica,
    feed: &mut Feed,
    online: &mut Online,
    spec: &v1::TrainSpec,
) -> Result<Outcome, WorkerError> {
    let schedule = Schedule::new(spec);
    let mut tally = replica.tally()?;
    loop {
        match feed.next()? {
            Item::Step(plan) => {
                let started = Instant::now();
                let mut report = Report::of(replica, plan.step);
                replica.begin_step(&plan, &mut tally)?;
                replica.link().reach("step-begun");
                for remaining in (0..feed.passes(&plan)).rev() {
                    let batch = feed.batch(plan.step)?; // decoded ahead; on CUDA the copy is asynchronous
                    if let Some(batch) = report.usable(batch) {
                        let loss =
                            report.timed(|| replica.forward(&batch, &plan, &mut tally, online))?;
                        replica.backward(&loss, remaining == 0)?; // the last one waits for the sum over all ranks
                    } else if remaining == 0 {
                        replica.backward_nothing()?; // peers wait for this rank's share, even an empty one
                    }
                }
                if plan.micro_batches.is_empty() {
                    replica.backward_nothing()?;
                }
                let (seen, norm) = replica.reduce(&tally)?; // the host waits for the device
                replica.link().reach("reduced");
                let rates = schedule.rates(plan.step);
                if report.is_finite(seen, norm, spec)? {
                    replica.commit(rates, &tally, seen, norm)?;
                } else {
                    replica.pass_over();
                }
                replica.link().reach("committed");
                online.end_step(replica, !report.passed_over)?;
                report.send(replica, &plan, seen, norm, rates, started, feed)?;
                replica.link().reach("reported");
                if seen.snapshot {
                    snapshot::take(replica)?;
                }
                if let Some(outcome) = end(replica, seen)? {
                    return Ok(outcome);
                }
            }
            Item::Evaluation(plan) => {
                online.send(replica)?;
                evaluate::run(replica, feed, &plan)?;
                // Ranks wait for each other here, so that a stop asked for during evaluation is one for all.
                if plan.last
                    && let Some(outcome) = end(replica, replica.agree(&mut tally)?)?
                {
                    return Ok(outcome);
                }
            }
            Item::Snapshot(_) => snapshot::take(replica)?,
            Item::Finish(_) => return finish(replica, Outcome::Finished),
        }
    }
}

/// Whether the ranks agreed to end here. With every process told to end, nobody would be left to go on from.
fn end(replica: &mut Replica, seen: Seen) -> Result<Option<Outcome>, WorkerError> {
    if seen.stop || seen.draining == replica.world_size() {
        if seen.draining > 0 || replica.link().inbox.requests.stop_with_snapshot() {
            snapshot::take(replica)?;
        }
        return finish(replica, Outcome::Stopped).map(Some);
    }
    if seen.draining > 0 {
        // The first to be told to end is seldom the last: what is reached is put into safety before anybody goes.
        snapshot::take(replica)?;
    }
    if seen.regroup || seen.draining > 0 {
        return finish(replica, Outcome::Boundary).map(Some);
    }
    Ok(None)
}

/// The last checkpoint must be answered before this worker may leave the generation.
fn finish(replica: &mut Replica, outcome: Outcome) -> Result<Outcome, WorkerError> {
    snapshot::settle(replica)?;
    Ok(outcome)
}

/// What this rank did in a step.
#[derive(Debug, Default)]
struct Report {
    place: witness::Place,
    sample_ids: Vec<u32>,
    skipped: Vec<v1::SkippedSample>,
    forward: Duration,
    passed_over: bool,
}

impl Report {
    fn of(replica: &Replica, step: u64) -> Self {
        let place = witness::Place {
            generation: replica.generation(),
            step,
            rank: replica.rank(),
        };
        Self {
            place,
            ..Self::default()
        }
    }

    /// Does a forward pass. It waits for no other rank, so its time is this rank's own pace.
    fn timed<T>(&mut self, pass: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = pass();
        self.forward += started.elapsed();
        done
    }

    /// Whether the step may be applied. Every rank sees the same figures, so every rank decides alike.
    fn is_finite(
        &mut self,
        seen: Seen,
        norm: f64,
        spec: &v1::TrainSpec,
    ) -> Result<bool, WorkerError> {
        let finite = seen.loss.is_finite() && norm.is_finite();
        self.passed_over = !finite;
        if finite || spec.on_not_finite == "skip" {
            return Ok(finite);
        }
        Err(WorkerError::NotFinite {
            step: self.place.step,
            loss: seen.loss,
            norm,
            samples: format!("{:?}", self.sample_ids),
        })
    }

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
        witness::uses(self.place, &batch.sample_ids);
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
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        witness::applied(self.place);
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
            samples_digest: proto::samples_digest(self.sample_ids.iter().copied()),
            state_hash: replica.hash_if_due()?,
            skipped: self.skipped,
            forward_micros: micros(self.forward),
            passed_over: self.passed_over,
        }));
        Ok(())
    }
}
