//! Scoring a share of the validation split.

use proto::v1;
use tch::{Device, Kind};

use crate::error::WorkerError;
use crate::train::feed::Feed;
use crate::train::replica::Replica;

/// Scores sent in one call.
const SAMPLES_A_CALL: usize = 4096;

/// Scores the plan's samples in evaluation mode and sends the logits; the coordinator computes every figure.
///
/// # Errors
/// When a picture cannot be read or the coordinator cannot be reached.
pub(crate) fn run(
    replica: &Replica,
    feed: &mut Feed,
    plan: &v1::EvaluationPlan,
) -> Result<(), WorkerError> {
    let step = replica.step();
    let torch = |source| WorkerError::Torch { step, source };
    replica
        .link()
        .now(replica.generation(), step, v1::Activity::Evaluating);
    let mut scores = Scores::default();
    for _ in 0..feed.evaluation_batches(plan.sample_ids.len()) {
        let batch = feed.batch(step)?;
        if batch.len() > 0 {
            let logits = replica.score(&batch)?; // the host waits for the device
            let logits = logits
                .f_to_device(Device::Cpu)
                .and_then(|t| t.f_to_kind(Kind::Float))
                .map_err(torch)?;
            let rows: Vec<f32> = logits
                .f_flatten(0, -1)
                .and_then(Vec::<f32>::try_from)
                .map_err(torch)?;
            scores.logits.extend(rows);
            scores.sample_ids.extend(&batch.sample_ids);
        }
        scores.skipped.extend(batch.skipped);
        replica.link().reach("scoring");
        if scores.sample_ids.len() >= SAMPLES_A_CALL {
            scores.send(replica)?;
        }
    }
    scores.send(replica)
}

#[derive(Debug, Default)]
struct Scores {
    sample_ids: Vec<u32>,
    logits: Vec<f32>,
    skipped: Vec<v1::SkippedSample>,
}

impl Scores {
    fn send(&mut self, replica: &Replica) -> Result<(), WorkerError> {
        let Self {
            sample_ids,
            logits,
            skipped,
        } = std::mem::take(self);
        if sample_ids.is_empty() && skipped.is_empty() {
            return Ok(());
        }
        let (generation, step) = (replica.generation(), replica.step());
        Ok(replica
            .link()
            .scores(generation, step, &sample_ids, &logits, &skipped)?)
    }
}
