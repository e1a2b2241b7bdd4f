//! Checkpoints: the state's bytes, made by rank 0 and streamed to the coordinator, which alone writes them to disk.

use std::collections::BTreeMap;

use model::weights;
use proto::v1;
use serde_json::json;

use crate::error::WorkerError;
use crate::train::replica::Replica;

/// What a checkpoint says of the run beside its tensors.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) run_id: String,
    pub(crate) seed: u64,
    pub(crate) steps_per_epoch: u64,
    /// Kept in `model.safetensors` itself, so that the file can be used alone; see [`crate::describe`].
    pub(crate) metadata: BTreeMap<String, String>,
}

/// Takes a snapshot of the state after the steps committed so far. The copy is made now; sending it goes on beside
/// training, one at a time.
///
/// # Errors
/// When the one before cannot be ended, or the device fails.
pub(crate) fn take(replica: &mut Replica) -> Result<(), WorkerError> {
    settle(replica)?;
    if replica.rank() != 0 {
        return Ok(()); // replicas are equal, so one speaks for all
    }
    let step = replica.step();
    replica
        .link()
        .now(replica.generation(), step, v1::Activity::Snapshot);
    let about = &replica.about;
    let state = json!({
        "format": 1,
        "run_id": about.run_id,
        "step": step,
        "epoch": step / about.steps_per_epoch.max(1),
        "step_in_epoch": step % about.steps_per_epoch.max(1),
        "seed": about.seed,
        "generation": replica.generation(),
        // Nothing random has a state of its own: order, augmentation and first values are functions of these.
        "rng": { "scheme": "counter: (seed, epoch, sample id)" },
    });
    replica.link().reach("snapshot");
    let weights = weights::to_safetensors(&replica.held().model_state()?, &about.metadata)?;
    let optimizer = weights::to_safetensors(&replica.held().optimizer_state()?, &BTreeMap::new())?;
    let mut files = vec![
        ("model.safetensors".to_owned(), weights),
        ("optimizer.safetensors".to_owned(), optimizer),
        ("state.json".to_owned(), format!("{state:#}\n").into_bytes()),
    ];
    if let Some(average) = replica.held().average_state()? {
        let average = weights::to_safetensors(&average, &about.metadata)?;
        files.push(("ema.safetensors".to_owned(), average));
    }
    replica.link().reach("uploading");
    replica.upload = Some(replica.link().upload(replica.generation(), step, files));
    Ok(())
}

/// Waits until the snapshot on its way, if any, is answered. That it could not be written is the coordinator's to tell;
/// training goes on.
///
/// # Errors
/// When the coordinator cannot be reached, or the generation is over first.
pub(crate) fn settle(replica: &mut Replica) -> Result<(), WorkerError> {
    if let Some(upload) = replica.upload.take() {
        match replica.link().uploaded(upload)? {
            Ok(answer) if answer.problem.is_empty() => {}
            Ok(answer) => tracing::warn!("checkpoint not written: {}", answer.problem),
            // The coordinator's successor will ask for another one.
            Err(error) if replica.link().is_lost_soon() => {
                tracing::warn!("checkpoint not written: {error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
