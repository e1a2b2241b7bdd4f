//! What a run tells while it goes on and leaves behind: history, checkpoints, events, scores.

use std::collections::BTreeSet;
use std::sync::Arc;

use coordinator::evaluation::kept::{KeptScores, best_scores, last_scores};
use coordinator::observer::RunEvent;
use domain::average_precision::mean_average_precision;
use domain::run_plan::RunPlan;
use proto::v1::worker_service_client::WorkerServiceClient;
use proto::v1::{GetCheckpointRequest, GetHistoryRequest, ListCheckpointsRequest};
use tokio::sync::Notify;

use crate::support::collective::Collective;
use crate::support::worker::{Misbehaviour, checkpoint_files, expected_map, fates, spawn};
use crate::support::{Served, external, shape};

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
