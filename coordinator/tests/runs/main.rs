//! Whole runs over real sockets, with workers that compute nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, where both are fine"
)]

mod endings;
mod history;
mod resumed;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;

use proto::v1::{GetStatusRequest, Phase};
use support::collective::Collective;
use support::worker::{Misbehaviour, Seen, expected_map, fates, spawn, spawn_all};
use support::{Served, TRAIN, VAL, external};
use tokio::task::JoinHandle;

#[tokio::test]
async fn two_epochs_on_three_workers_train_every_sample_once_and_give_the_exact_map() {
    // Given a run that waits for three workers
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(external(dir.path(), 3)).await;
    let status = served.until_phase(Phase::Waiting).await;
    assert_eq!(status.reason, "waiting for 3 of 3 workers: none has joined");
    let mut people = served.people().await;

    // When they come and do their plan
    let seen = fates(spawn_all(&served.address, 3)).await;
    served.until_phase(Phase::Finished).await;
    let outcome = served.end().await;

    // Then all were released with 0, having trained on each sample once an epoch and scored each once an evaluation
    assert_eq!(outcome.exit_code, 0);
    assert_eq!(outcome.reason, "finished: 8 steps, 2 epochs");
    assert!(
        seen.iter().all(|worker| worker.exit_code == Some(0)),
        "{seen:?}"
    );
    for epoch in 0..2 {
        assert_eq!(trained(&seen, epoch), (0..TRAIN).collect::<Vec<_>>());
    }
    let mut scored: Vec<_> = seen
        .iter()
        .flat_map(|worker| worker.scored.clone())
        .collect();
    scored.sort_unstable();
    assert_eq!(scored, (0..VAL).flat_map(|id| [id, id]).collect::<Vec<_>>());
    // and the figures are the domain's
    let maps: Vec<_> = outcome
        .evaluations
        .iter()
        .map(|e| (e.step, e.epoch, e.metrics.average_precision.map))
        .collect();
    assert_eq!(
        maps,
        [(4, 0, Some(expected_map())), (8, 1, Some(expected_map()))]
    );
    assert_eq!(
        outcome.evaluations[0]
            .metrics
            .average_precision
            .classes_without_positive,
        [2]
    );
    assert_eq!(outcome.images, u64::from(2 * TRAIN));
    assert_eq!(outcome.epoch_losses.len(), 2);
    assert_eq!(outcome.status.best_epoch, 1);
    assert!(
        outcome.status.last_checkpoint.ends_with("step-00000008"),
        "{}",
        outcome.status.last_checkpoint
    );
    // and nobody is served any more
    assert!(people.get_status(GetStatusRequest {}).await.is_err());
}

/// What all ranks together trained on in an epoch, sorted.
fn trained(seen: &[Seen], epoch: u32) -> Vec<u32> {
    let mut ids: Vec<u32> = seen
        .iter()
        .flat_map(|worker| &worker.steps)
        .filter(|(_, step)| step.epoch == epoch)
        .flat_map(|(_, step)| &step.micro_batches)
        .flat_map(|batch| batch.sample_ids.clone())
        .collect();
    ids.sort_unstable();
    ids
}

/// A run of one worker that has done `step` steps and does the next when it hears of a stop.
async fn waiting_at(dir: &Path, step: u64) -> (Served, Vec<JoinHandle<Seen>>) {
    let mut served = Served::start(external(dir, 1)).await;
    let waiting = Misbehaviour {
        await_stop_at: Some(step),
        ..Misbehaviour::default()
    };
    let collective = Collective::default();
    let worker = spawn(&served.address, "worker-0", &collective, waiting);
    served.until("it waits", |status| status.step == step).await;
    (served, vec![worker])
}
