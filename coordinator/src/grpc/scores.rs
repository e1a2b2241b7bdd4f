//! Validation scores as they come from the ranks.

use std::sync::Arc;

use domain::run::Event;
use domain::score_table::Scored;
use proto::v1::{SubmitScoresRequest, SubmitScoresResponse};
use tokio::sync::oneshot;
use tonic::{Status, Streaming};

use super::Context;
use crate::driver::Message;
use crate::evaluation::{Computed, Evaluated, Metrics, Receipt};
use crate::store::Scores;

/// Takes a stream of scores; answers once all of it is on disk, as far as that takes it: whoever has the answer goes on, and
/// has no more what a coordinator that is killed then would lack.
pub(super) async fn submit(
    context: &Context,
    mut stream: Streaming<SubmitScoresRequest>,
) -> Result<SubmitScoresResponse, Status> {
    let mut received = None;
    while let Some(batch) = stream.message().await? {
        if batch.online {
            take_online(context, &batch)?;
            continue;
        }
        received = Some(take(context, batch).await?.received);
    }
    if received.is_some() {
        let (done, kept) = oneshot::channel();
        context.tell(Message::Flush(done)).await?;
        // On a full disk the run goes on with what is in memory.
        if let Ok(Err(problem)) = kept.await {
            tracing::warn!(%problem, "scores are not on disk");
        }
    }
    let received = received.unwrap_or_default();
    Ok(SubmitScoresResponse {
        received: received.into(),
    })
}

/// Takes scores of training steps: they are a figure to look at, so nothing waits for them.
fn take_online(context: &Context, batch: &SubmitScoresRequest) -> Result<(), Status> {
    context.check_run(&batch.run_id)?;
    context.check_generation(batch.generation)?;
    let last_step = batch.step.saturating_sub(1);
    let epoch = u32::try_from(last_step / context.steps_per_epoch).unwrap_or(u32::MAX);
    context
        .evaluations
        .submit_online(epoch, &batch.sample_ids, &batch.logits)
        .map_err(|problem| Status::invalid_argument(problem.to_string()))
}

async fn take(context: &Context, batch: SubmitScoresRequest) -> Result<Receipt, Status> {
    context.check_run(&batch.run_id)?;
    let SubmitScoresRequest {
        generation,
        step,
        sample_ids,
        logits,
        skipped,
        ..
    } = batch;
    context.check_generation(generation)?;
    let total = context.steps_per_epoch * u64::from(u32::MAX);
    if step == 0 || step > total || !step.is_multiple_of(context.steps_per_epoch) {
        return Err(Status::invalid_argument(format!(
            "no evaluation is due after step {step}: epochs have {} steps",
            context.steps_per_epoch
        )));
    }
    let left_out: Vec<u32> = skipped.iter().map(|skipped| skipped.sample_id).collect();
    let receipt = context
        .evaluations
        .submit(step, &sample_ids, &logits, &left_out)
        .map_err(|problem| Status::invalid_argument(problem.to_string()))?;
    let Receipt {
        received: scored,
        samples,
        began,
        completed,
        too_late,
    } = receipt;
    if too_late {
        // Another rank has sent them for this one.
        return Ok(receipt);
    }
    let skipped = skipped
        .into_iter()
        .map(|skipped| (skipped.sample_id, skipped.reason))
        .collect();
    let scores = Box::new(Scores {
        step,
        sample_ids,
        logits,
        skipped: left_out,
    });
    context
        .tell(Message::Scored {
            step,
            scored,
            samples,
            began,
            skipped,
            scores,
        })
        .await?;
    if completed {
        conclude(context, generation, step).await;
    }
    Ok(receipt)
}

/// Computes the figures of evaluations that a coordinator before this one held all scores of.
pub(crate) fn conclude_kept(context: &Arc<Context>, generation: u64, complete: Vec<u64>) {
    let context = Arc::clone(context);
    tokio::spawn(async move {
        for step in complete {
            let samples = context.evaluations.samples();
            let known = Event::Scored {
                step,
                scored: samples,
                samples,
            };
            if context.tell(Message::Event(known)).await.is_err() {
                return; // the run is over
            }
            conclude(&context, generation, step).await;
        }
    });
}

/// Computes the figures of a complete evaluation, apart from the call that completed it. Several may be complete at once, where
/// workers have come back with what they kept: figures come in the order of steps, since decisions are made by them.
async fn conclude(context: &Context, generation: u64, completed: u64) {
    let (evaluations, driver) = (context.evaluations.clone(), context.driver.clone());
    let (folder, turn) = (Arc::clone(&context.scores), Arc::clone(&context.concluding));
    let steps_per_epoch = context.steps_per_epoch;
    tokio::spawn(async move {
        let _turn = turn.lock().await;
        let step = evaluations.first_complete().unwrap_or(completed);
        let last_step = step.saturating_sub(1);
        let epoch = u32::try_from(last_step / steps_per_epoch).unwrap_or(u32::MAX);
        let own = evaluations.clone();
        let computed = tokio::task::spawn_blocking(move || {
            let Computed { took, outcome } = own.compute(step)?;
            let map = |of: &(Metrics, Scored)| of.0.average_precision.map;
            // Whoever commits a checkpoint waits for it.
            own.conclude(step, outcome.as_ref().ok().and_then(map));
            let (metrics, scored) = match outcome {
                Ok(figures) => figures,
                Err(problem) => return Some(Err(problem.to_string())),
            };
            // Before the figures are recorded: where those are, the scores are.
            let kept = folder.write(step, epoch, &scored, &metrics.skipped);
            let evaluated = Evaluated {
                step,
                epoch,
                generation,
                seconds: took.as_secs_f64(),
                metrics,
            };
            Some(Ok((
                evaluated,
                kept.err().map(|problem| problem.to_string()),
            )))
        })
        .await;
        let outcome = match computed {
            // Someone else computes it.
            Ok(None) => return,
            Ok(Some(outcome)) => outcome.map(Box::new),
            Err(_) => {
                evaluations.conclude(step, None);
                Err("computing the figures was cut off".to_owned())
            }
        };
        // An error means that the run is over without them.
        let _ = driver.send(Message::Evaluated { step, outcome }).await;
    });
}
