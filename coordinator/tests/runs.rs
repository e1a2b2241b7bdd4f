//! Whole runs over real sockets, with workers that compute nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, where both are fine"
)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use coordinator::evaluation::kept::{KeptScores, best_scores, last_scores};
use coordinator::observer::RunEvent;
use coordinator::run::Shutdown;
use domain::average_precision::mean_average_precision;
use domain::run_plan::RunPlan;
use proto::v1::fault::Class;
use proto::v1::worker_service_client::WorkerServiceClient;
use proto::v1::{
    GetCheckpointRequest, GetHistoryRequest, GetStatusRequest, ListCheckpointsRequest, Phase,
};
use support::collective::Collective;
use support::worker::{
    Misbehaviour, Seen, checkpoint_files, expected_map, fates, spawn, spawn_all, spawn_world,
};
use support::{Served, TRAIN, VAL, external, recorded, resume_at, shape};
use tokio::sync::Notify;
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

#[tokio::test]
async fn a_fault_that_a_worker_reports_is_the_reason_and_its_class_the_exit_code() {
    for (class, exit_code) in [(Class::Data, 65), (Class::Config, 64), (Class::Numeric, 64)] {
        let dir = tempfile::tempdir().unwrap();
        let served = Served::start(external(dir.path(), 2)).await;
        let collective = Collective::default();
        let message = "7.jpg cannot be decoded: replace it".to_owned();
        let bad = Misbehaviour {
            fault_at: Some((2, class, message)),
            ..Misbehaviour::default()
        };
        let workers = vec![
            spawn(&served.address, "a", &collective, Misbehaviour::default()),
            spawn(&served.address, "b", &collective, bad),
        ];

        let seen = fates(workers).await;
        let outcome = served.end().await;

        assert_eq!(
            outcome.reason,
            "b (rank 1) at step 2: 7.jpg cannot be decoded: replace it"
        );
        assert_eq!(u32::from(outcome.exit_code), exit_code);
        assert_eq!(
            (seen[0].exit_code, seen[1].exit_code),
            (Some(75), Some(exit_code))
        );
    }
}

#[tokio::test]
async fn a_replica_that_differs_ends_the_run_naming_it() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(external(dir.path(), 3)).await;
    let workers = spawn_world(&served.address, 3, |n| Misbehaviour {
        differ_at: (n == 2).then_some(3),
        ..Misbehaviour::default()
    });

    fates(workers).await;
    let outcome = served.end().await;

    assert_eq!(outcome.exit_code, 1);
    let said =
        "replicas differ after step 3: the loss of worker-2 is not that of worker-0 and worker-1";
    assert!(outcome.reason.starts_with(said), "{}", outcome.reason);
}

#[tokio::test]
async fn a_stop_in_mid_epoch_leaves_a_checkpoint_from_which_the_run_goes_on_to_the_same_end() {
    // Given a run whose second worker does not do step 2 before it hears of a stop
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(external(dir.path(), 2)).await;
    let collective = Collective::default();
    let paused = Misbehaviour {
        await_stop_at: Some(2),
        ..Misbehaviour::default()
    };
    let workers = vec![
        spawn(
            &served.address,
            "worker-0",
            &collective,
            Misbehaviour::default(),
        ),
        spawn(&served.address, "worker-1", &collective, paused),
    ];
    served.until("two steps", |status| status.step == 2).await;

    // When Ctrl-C is pressed
    served.shutdown.send(Shutdown::Interrupt).await.unwrap();
    let before = fates(workers).await;
    let outcome = served.end().await;

    // Then it stopped at the boundary that both agreed on
    assert_eq!(outcome.exit_code, 0);
    assert_eq!(outcome.status.phase(), Phase::Stopped);
    assert_eq!(
        outcome.reason,
        "stopped after 3 of 8 steps (asked by Ctrl-C): resume with --resume"
    );

    // and resumed from there it does what was left, in the next generation
    let served = Served::start(resume_at(external(dir.path(), 2), 3)).await;
    let after = fates(spawn_all(&served.address, 2)).await;
    let outcome = served.end().await;
    assert_eq!(outcome.exit_code, 0);
    assert_eq!(outcome.status.generation, 2);
    let all: Vec<_> = before.into_iter().chain(after).collect();
    for epoch in 0..2 {
        assert_eq!(trained(&all, epoch), (0..TRAIN).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn stop_after_ends_the_plan_there_with_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = external(dir.path(), 1);
    setup.stop_after = Some(6);
    let served = Served::start(setup).await;

    let seen = fates(spawn_all(&served.address, 1)).await;
    let outcome = served.end().await;

    assert_eq!(
        outcome.reason,
        "stopped after 6 of 8 steps (after step 6 as asked): resume with --resume"
    );
    assert_eq!((outcome.exit_code, seen[0].exit_code), (0, Some(0)));
    assert_eq!(seen[0].steps.len(), 6);
    assert!(outcome.status.last_checkpoint.ends_with("step-00000006"));
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

#[tokio::test]
async fn bad_pictures_found_while_the_run_goes_on_end_it_as_bad_data() {
    // Given a run whose worker waits in its second step
    let dir = tempfile::tempdir().unwrap();
    let (served, workers) = waiting_at(dir.path(), 1).await;

    // When the check of the files comes to its end
    let problem = "2 of 26 train pictures cannot be used".to_owned();
    let request = Shutdown::BadPictures(problem.clone());
    served.shutdown.send(request).await.unwrap();
    fates(workers).await;
    let outcome = served.end().await;

    // Then
    assert_eq!((outcome.exit_code, outcome.reason), (65, problem));
    assert_eq!(outcome.status.phase(), Phase::Failed);
}

#[tokio::test]
async fn a_checkpoint_at_an_epochs_end_without_figures_is_evaluated_first_on_resume() {
    // Given a run that was stopped right after its first epoch's last step, before the evaluation
    let dir = tempfile::tempdir().unwrap();
    let (served, workers) = waiting_at(dir.path(), 3).await;
    served.shutdown.send(Shutdown::Terminate).await.unwrap();
    fates(workers).await;
    let outcome = served.end().await;
    assert_eq!(outcome.status.step, 4);
    assert_eq!(outcome.evaluations.len(), 0);

    // When it is resumed
    let served = Served::start(resume_at(external(dir.path(), 1), 4)).await;
    fates(spawn_all(&served.address, 1)).await;
    let outcome = served.end().await;

    // Then both epochs have their figures
    let steps: Vec<_> = outcome
        .evaluations
        .iter()
        .map(|evaluated| evaluated.step)
        .collect();
    assert_eq!(steps, [4, 8]);
}

#[tokio::test]
async fn history_checkpoints_and_events_tell_the_same_story() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(external(dir.path(), 2)).await;
    let mut people = served.people().await;
    let (collective, resume) = (Collective::default(), Arc::new(Notify::new()));
    let paused = Misbehaviour {
        pause_at: Some((7, Arc::clone(&resume))),
        ..Misbehaviour::default()
    };
    let workers = vec![
        spawn(
            &served.address,
            "worker-0",
            &collective,
            Misbehaviour::default(),
        ),
        spawn(&served.address, "worker-1", &collective, paused),
    ];
    served
        .until("seven steps and a checkpoint", |s| {
            s.step == 7 && !s.last_checkpoint.is_empty()
        })
        .await;

    let request = GetHistoryRequest {
        from_step: 0,
        page_size: 5,
    };
    let first = people.get_history(request).await.unwrap().into_inner();
    let request = GetHistoryRequest {
        from_step: first.next_step,
        page_size: 5,
    };
    let second = people.get_history(request).await.unwrap().into_inner();
    let steps: Vec<_> = first
        .steps
        .iter()
        .chain(&second.steps)
        .map(|point| point.step)
        .collect();
    assert_eq!(steps, (0..7).collect::<Vec<_>>());
    assert_eq!((first.next_step, second.next_step), (5, 0));
    let epochs: Vec<_> = first
        .epochs
        .iter()
        .chain(&second.epochs)
        .map(|e| (e.epoch, e.map))
        .collect();
    assert_eq!(epochs, [(1, Some(expected_map()))]);

    let list = people
        .list_checkpoints(ListCheckpointsRequest {})
        .await
        .unwrap()
        .into_inner();
    let entries: Vec<_> = list
        .checkpoints
        .iter()
        .map(|c| (c.step, c.map, c.last, c.best))
        .collect();
    assert_eq!(entries, [(4, Some(expected_map()), true, true)]);
    let mut worker = WorkerServiceClient::connect(served.address.clone())
        .await
        .unwrap();
    let request = GetCheckpointRequest {
        run_id: "test-run".to_owned(),
        step: 4,
    };
    let mut stream = worker.get_checkpoint(request).await.unwrap().into_inner();
    let mut files = Vec::new();
    while let Some(chunk) = stream.message().await.unwrap() {
        assert!(chunk.end_of_file, "these files fit one chunk each");
        files.push((chunk.file, chunk.data));
    }
    assert_eq!(
        files,
        checkpoint_files(4).map(|(file, data)| (file.to_owned(), data))
    );

    resume.notify_one();
    fates(workers).await;
    let mut events = served.events.resubscribe();
    std::mem::swap(&mut events, &mut served.events);
    served.end().await;
    let mut kinds = BTreeSet::new();
    while let Ok(event) = events.try_recv() {
        kinds.insert(match event {
            RunEvent::Joined { .. } => "joined",
            RunEvent::GenerationFormed { .. } => "formed",
            RunEvent::Step { .. } => "step",
            RunEvent::Evaluated { .. } => "evaluated",
            RunEvent::CheckpointCommitted { .. } => "checkpoint",
            RunEvent::Ended { .. } => "ended",
            _ => "other",
        });
    }
    assert_eq!(
        kinds
            .into_iter()
            .filter(|kind| *kind != "other")
            .collect::<Vec<_>>(),
        [
            "checkpoint",
            "ended",
            "evaluated",
            "formed",
            "joined",
            "step"
        ]
    );
    let plan = RunPlan::new(shape(), 2).unwrap();
    let kept = KeptScores::read(&last_scores(dir.path())).unwrap();
    assert_eq!((kept.about.step, kept.about.epoch), (8, 2));
    assert_eq!(kept.image_ids, (300..311).collect::<Vec<_>>());
    let map = mean_average_precision(&kept.matrix().unwrap(), &kept.labels).unwrap();
    assert_eq!(map.map, Some(expected_map()));
    // Of equals the earliest is best
    let best = KeptScores::read(&best_scores(dir.path())).unwrap();
    assert_eq!(best.about.step, 4);
    let recorded = std::fs::read_to_string(dir.path().join("events.jsonl")).unwrap();
    let progress = recorded
        .lines()
        .filter(|line| line.contains(r#""event":"progress""#))
        .count();
    assert_eq!(progress as u64, 2 * plan.total_steps());
}

#[tokio::test]
async fn a_run_resumed_from_an_older_checkpoint_voids_what_lay_beyond_it() {
    // Given a run whose only worker was lost in its last step, and which was then given up
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(external(dir.path(), 1)).await;
    let dying = Misbehaviour {
        die_at: Some(7),
        ..Misbehaviour::default()
    };
    let collective = Collective::default();
    fates(vec![spawn(&served.address, "worker-0", &collective, dying)]).await;
    let status = served.until_phase(Phase::Waiting).await;
    assert_eq!(status.step, 7);
    served.shutdown.send(Shutdown::Terminate).await.unwrap();
    let outcome = served.end().await;
    assert_eq!(
        (outcome.exit_code, outcome.reason.as_str()),
        (
            0,
            "stopped before step 4 (asked by SIGTERM): resume with --resume"
        )
    );

    // When it goes on from the checkpoint at its first epoch's end
    let served = Served::start(resume_at(external(dir.path(), 1), 4)).await;
    let mut people = served.people().await;
    let history = people
        .get_history(GetHistoryRequest {
            from_step: 0,
            page_size: 0,
        })
        .await
        .unwrap()
        .into_inner();
    fates(spawn_all(&served.address, 1)).await;
    let outcome = served.end().await;

    // Then the steps beyond are not shown, and the ledger keeps them as void
    assert_eq!(
        history
            .steps
            .iter()
            .map(|point| point.step)
            .collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
    assert_eq!((outcome.exit_code, outcome.evaluations.len()), (0, 2));
    let recorded = recorded(dir.path());
    assert_eq!(recorded.generation, 2);
    assert_eq!(recorded.ledger.steps_done(), 8);
    let void: Vec<_> = recorded
        .ledger
        .void()
        .iter()
        .map(|v| (v.generation, v.steps.first, v.steps.last))
        .collect();
    assert_eq!(void, [(1, 4, 6)]);
}
