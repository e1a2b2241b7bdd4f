//! Runs that lose workers, over real sockets, with workers that compute nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, where both are fine"
)]

mod support;

use coordinator::store::Recorded;
use domain::run::World;
use domain::run_plan::RunPlan;
use proto::v1::Phase;
use proto::v1::fault::Class;
use support::collective::Collective;
use support::worker::{Misbehaviour, Seen, expected_map, fates, spawn, spawn_world};
use support::{Served, TRAIN, VAL, external, recorded, shape};

/// That the lineage trained on every sample exactly once an epoch: by the ledger's own count, and by what workers say
/// they did.
fn exactly_once(recorded: &Recorded, seen: &[Seen]) {
    let verification = recorded.ledger.verify(&RunPlan::new(shape(), 1).unwrap());
    assert!(verification.holds(), "{verification:#?}");
    for epoch in 0..2 {
        let mut ids: Vec<u32> = seen
            .iter()
            .flat_map(|worker| &worker.steps)
            .filter(|(generation, step)| {
                step.epoch == epoch && owner(recorded, step.step) == *generation
            })
            .flat_map(|(_, step)| &step.micro_batches)
            .flat_map(|batch| batch.sample_ids.clone())
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..TRAIN).collect::<Vec<_>>(), "epoch {epoch}");
    }
}

/// The generation that owns a step.
fn owner(recorded: &Recorded, step: u64) -> u64 {
    let of = |generation: &&domain::ledger::Generation| {
        generation
            .committed
            .is_some_and(|steps| (steps.first..=steps.last).contains(&step))
    };
    recorded
        .ledger
        .generations()
        .iter()
        .find(of)
        .unwrap()
        .number
}

#[tokio::test]
async fn survivors_go_on_without_a_worker_whose_stream_breaks() {
    // Given three workers of which one dies in its sixth step
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(external(dir.path(), 3)).await;
    let workers = spawn_world(&served.address, 3, |n| Misbehaviour {
        die_at: (n == 1).then_some(5),
        ..Misbehaviour::default()
    });

    let seen = fates(workers).await;
    let outcome = served.end().await;

    // Then the other two finish the run, and nothing is lost or repeated
    assert_eq!(
        (outcome.exit_code, outcome.reason.as_str()),
        (0, "finished: 8 steps, 2 epochs")
    );
    assert!(seen[1].died);
    assert_eq!((seen[0].exit_code, seen[2].exit_code), (Some(0), Some(0)));
    assert_eq!(outcome.status.generation, 2);
    assert!(
        outcome.status.warnings[0]
            .starts_with("worker-1 (rank 1) was lost in generation 1 after 5 steps"),
        "{:?}",
        outcome.status.warnings
    );
    let recorded = recorded(dir.path());
    assert_eq!(owner(&recorded, 4), 1);
    assert_eq!(owner(&recorded, 5), 2);
    exactly_once(&recorded, &seen);
    // and what the two had done of the step in flight is handed to whoever did it
    let first = recorded.ledger.generations()[1].first_step.as_ref();
    let first = first.expect("both had done one");
    assert_eq!(first.step, 5);
    for (worker, handed_out) in [&seen[0], &seen[2]].into_iter().zip(&first.micro_batches) {
        let before = worker
            .steps
            .iter()
            .find(|(_, plan)| plan.step == 4)
            .unwrap();
        let position = before.1.micro_batches[0].index;
        assert_eq!(
            handed_out[0], position,
            "its ranges are the same in every step"
        );
        let (_, plan) = worker
            .steps
            .iter()
            .find(|(_, plan)| plan.step == 5)
            .unwrap();
        let told: Vec<u32> = plan.micro_batches.iter().map(|batch| batch.index).collect();
        assert_eq!(&told, handed_out);
    }
}

#[tokio::test]
async fn a_death_in_evaluation_costs_only_unscored_samples_and_not_the_map() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(external(dir.path(), 3)).await;
    let workers = spawn_world(&served.address, 3, |n| Misbehaviour {
        die_in_evaluation: (n == 2).then_some(4),
        ..Misbehaviour::default()
    });

    let seen = fates(workers).await;
    let outcome = served.end().await;

    assert_eq!(outcome.exit_code, 0, "{}", outcome.reason);
    let maps: Vec<_> = outcome
        .evaluations
        .iter()
        .map(|e| (e.step, e.metrics.average_precision.map))
        .collect();
    assert_eq!(maps, [(4, Some(expected_map())), (8, Some(expected_map()))]);
    // What was acknowledged is not scored again: two evaluations, and no sample more than twice.
    let mut scored: Vec<_> = seen
        .iter()
        .flat_map(|worker| worker.scored.clone())
        .collect();
    scored.sort_unstable();
    assert_eq!(scored, (0..VAL).flat_map(|id| [id, id]).collect::<Vec<_>>());
    assert!(
        outcome
            .status
            .best_checkpoint
            .ends_with("step-00000004-map-0.5000")
            || !outcome.status.best_checkpoint.is_empty()
    );
    exactly_once(&recorded(dir.path()), &seen);
}

#[tokio::test]
async fn a_fixed_world_waits_for_the_replacement_and_a_spare_is_one_at_once() {
    // Given a run of two that has a spare
    let dir = tempfile::tempdir().unwrap();
    let mut setup = external(dir.path(), 2);
    setup.membership.world = World::Fixed;
    let mut served = Served::start(setup).await;
    let collective = Collective::default();
    let dying = |die_at| Misbehaviour {
        die_at: Some(die_at),
        ..Misbehaviour::default()
    };
    let mut workers = vec![spawn(&served.address, "a", &collective, dying(3))];
    workers.push(spawn(&served.address, "b", &collective, dying(5)));
    served
        .until("both are in", |status| status.generation == 1)
        .await;
    workers.push(spawn(
        &served.address,
        "spare",
        &collective,
        Misbehaviour::default(),
    ));
    // When both of its workers die one after the other
    let status = served
        .until("it waits", |status| {
            status.phase() == Phase::Regrouping && status.step == 5
        })
        .await;
    assert!(status.generation >= 2, "{status:?}");
    served
        .until("the survivor is out", |status| {
            status.reason.ends_with("1 of 2 workers are here")
        })
        .await;
    // Then it waits for another
    workers.push(spawn(
        &served.address,
        "late",
        &collective,
        Misbehaviour::default(),
    ));
    let seen = fates(workers).await;
    let outcome = served.end().await;
    assert_eq!(outcome.exit_code, 0, "{}", outcome.reason);
    assert!(
        recorded(dir.path())
            .ledger
            .generations()
            .iter()
            .all(|generation| generation.members.len() == 2)
    );
    exactly_once(&recorded(dir.path()), &seen);
}

#[tokio::test]
async fn a_newcomer_comes_in_at_a_step_boundary() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = external(dir.path(), 2);
    setup.fault_timeout = std::time::Duration::from_millis(400);
    let mut served = Served::start(setup).await;
    let collective = Collective::default();
    let resume = std::sync::Arc::new(tokio::sync::Notify::new());
    let paused = Misbehaviour {
        pause_at: Some((2, std::sync::Arc::clone(&resume))),
        die_at: Some(4),
        ..Misbehaviour::default()
    };
    let first = spawn(&served.address, "a", &collective, paused);
    let second = spawn(&served.address, "b", &collective, Misbehaviour::default());
    served.until("it pauses", |status| status.step == 2).await;
    let third = spawn(&served.address, "c", &collective, Misbehaviour::default());
    resume.notify_one();
    let seen = fates(vec![first, second, third]).await;
    let outcome = served.end().await;
    assert_eq!(outcome.exit_code, 0, "{}", outcome.reason);
    let last = recorded(dir.path())
        .ledger
        .current()
        .unwrap()
        .members
        .clone();
    assert_eq!(last, ["b", "c"]);
    exactly_once(&recorded(dir.path()), &seen);
}

#[tokio::test]
async fn a_bug_of_one_worker_does_not_end_the_run_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(external(dir.path(), 2)).await;
    let collective = Collective::default();
    let bad = Misbehaviour {
        fault_at: Some((2, Class::Internal, "index out of bounds".to_owned())),
        ..Misbehaviour::default()
    };
    let workers = vec![
        spawn(&served.address, "a", &collective, Misbehaviour::default()),
        spawn(&served.address, "b", &collective, bad),
    ];
    let seen = fates(workers).await;
    let outcome = served.end().await;
    assert_eq!(outcome.exit_code, 0, "{}", outcome.reason);
    assert_eq!((seen[0].exit_code, seen[1].exit_code), (Some(0), Some(75)));
    assert!(
        seen[1]
            .reason
            .contains("b (rank 1) after 2 steps: index out of bounds"),
        "{}",
        seen[1].reason
    );
    exactly_once(&recorded(dir.path()), &seen);
}
