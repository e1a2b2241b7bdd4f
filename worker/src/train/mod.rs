//! Training: [`run`] is the loop, on one screen. Everything it needs was set up elsewhere.

pub(crate) mod average;
pub(crate) mod batch;
pub(crate) mod feed;
pub(crate) mod held;
mod meeting;
pub(crate) mod online;
pub(crate) mod optimizer;
pub(crate) mod replica;
pub(crate) mod restore;
mod schedule;
mod tally;
pub(crate) mod transfer;
pub(crate) mod transform;
mod witness;
pub(crate) mod work;

use std::time::{Duration, Instant};

use model::loss::Loss;
use proto::v1::{self, plan_item::Item, session_request::Message};

use crate::error::WorkerError;
use crate::{evaluate, snapshot};
use feed::Feed;
use online::Online;
use replica::Replica;
use schedule::{Rates, Schedule};
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
    /// Others come in: another generation follows.
    Boundary,
    /// Someone whose process was told to end goes, and the state is in safety: another generation follows.
    Drained,
}

/// Works through the plan until it finishes, or all ranks agree to stop or to regroup.
///
/// A pass is a micro-batch, or several small ones side by side, forward and backward in one go. The gradients of all ranks are summed while the last
/// backward pass still runs, and with them the tally (loss, requests, batch statistics). The decoder's
/// threads work on the next batches all the while; where it has none, [`Feed::batch`] decodes.
pub(crate) fn run(
    replica: &mut Replica,
    feed: &mut Feed,
    online: &mut Online,
    spec: &v1::TrainSpec,
) -> Result<Outcome, WorkerError> {
    let schedule = Schedule::new(spec);
    loop {
        match feed.next()? {
            Item::Step(plan) => {
                let started = Instant::now();
                // Without the micro-batches that it had done when a generation before was cut short.
                let passes = replica.begin_step(&plan, feed, online)?;
                replica.link().reach("step-begun");
                for remaining in (0..passes).rev() {
                    let batch = feed.batch(plan.step)?; // decoded ahead, given threads; on CUDA the copy is asynchronous
                    let torch = replica.torch();
                    if let Some(batch) = replica.work().usable(batch).map_err(torch)? {
                        let loss = replica.forward(&batch, &plan, online)?;
                        feed.upload_next(plan.step); // on CUDA: while the device goes forward
                        replica.backward(&loss, remaining == 0)?; // the last one waits for the sum over all ranks
                        replica.link().reach("added-up");
                    } else if remaining == 0 {
                        replica.backward_nothing()?; // peers wait for this rank's share, even an empty one
                    }
                }
                if passes == 0 {
                    replica.backward_nothing()?;
                }
                let (seen, norm) = replica.read()?; // the host waits for the device
                replica.link().reach("reduced");
                let rates = schedule.rates(plan.step);
                let applied = replica.work().is_finite(seen, norm, spec)?;
                if applied {
                    replica.commit(rates, seen, norm)?;
                } else {
                    replica.pass_over();
                }
                replica.link().reach("committed");
                online.end_step(replica, applied)?;
                report(replica, &plan, (seen, norm, rates), started, feed)?;
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
                let all = evaluate::run(replica, feed, &plan)?;
                // Ranks wait for each other here, so that a stop asked for during evaluation is one for all. Whoever has
                // left rows to score was asked to end, so that they end here.
                if (plan.last || !all)
                    && let Some(outcome) = end(replica, meeting::agree(replica)?)?
                {
                    return Ok(outcome);
                }
            }
            Item::Snapshot(_) => snapshot::take(replica)?,
            Item::Finish(_) => return finish(replica, Outcome::Finished),
        }
    }
}

/// Tells the coordinator of the step that was just applied or passed over.
fn report(
    replica: &mut Replica,
    plan: &v1::StepPlan,
    (seen, norm, rates): (Seen, f64, Rates),
    started: Instant,
    feed: &mut Feed,
) -> Result<(), WorkerError> {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let report = v1::Progress {
        samples_in_step: plan.samples_in_step,
        loss: seen.loss,
        gradient_norm: norm,
        learning_rate_trunk: rates.trunk,
        learning_rate_head: rates.head,
        step_micros: micros(started.elapsed()),
        data_wait_micros: micros(feed.take_waited()),
        state_hash: replica.hash_if_due()?,
        passed_over: !(seen.loss.is_finite() && norm.is_finite()),
        ..replica.work().reported()
    };
    replica.link().send(Message::Progress(report));
    Ok(())
}

/// Whether the ranks agreed to end here. With every process told to end, nobody would be left to go on from.
fn end(replica: &mut Replica, seen: Seen) -> Result<Option<Outcome>, WorkerError> {
    let outcome = if seen.stop || seen.draining == replica.world_size() {
        Outcome::Stopped
    } else if seen.draining > 0 {
        Outcome::Drained
    } else if seen.regroup {
        return finish(replica, Outcome::Boundary).map(Some);
    } else {
        return Ok(None);
    };
    // The first to be told to end is seldom the last: what is reached is put into safety before anybody goes. By what all
    // have seen: a rank may itself not have heard yet of what others were asked for.
    snapshot::take(replica)?;
    finish(replica, outcome).map(Some)
}

/// The last checkpoint must be answered before this worker may leave the generation.
fn finish(replica: &mut Replica, outcome: Outcome) -> Result<Outcome, WorkerError> {
    snapshot::settle(replica)?;
    Ok(outcome)
}
