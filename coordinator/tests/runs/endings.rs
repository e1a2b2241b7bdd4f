//! What ends a run before its plan does.

use coordinator::run::Shutdown;
use proto::v1::Phase;
use proto::v1::fault::Class;

use crate::support::collective::Collective;
use crate::support::worker::{Misbehaviour, fates, spawn, spawn_all, spawn_world};
use crate::support::{Served, external};
use crate::waiting_at;

#[tokio::test]
async fn a_fault_that_a_worker_reports_is_the_reason_and_its_class_the_exit_code() {
    for (class, exit_code) in [(Class::Data, 65), (Class::Config, 64), (Class::Numeric, 65)] {
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

        // What is wrong with the numbers may be wrong with any sample of the step.
        let samples = outcome.reason.split_once("; its samples: [");
        assert_eq!(samples.is_some(), class == Class::Numeric);
        assert_eq!(
            samples.map_or(outcome.reason.as_str(), |(text, _)| text),
            "b (rank 1) after 2 steps: 7.jpg cannot be decoded: replace it"
        );
        assert_eq!(u32::from(outcome.exit_code), exit_code);
        assert_eq!(
            (seen[0].exit_code, seen[1].exit_code),
            (Some(75), Some(exit_code))
        );
    }
}

#[tokio::test]
async fn of_two_replicas_that_differ_none_can_be_told_right_and_the_run_ends() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(external(dir.path(), 2)).await;
    let workers = spawn_world(&served.address, 2, |n| Misbehaviour {
        differ_at: (n == 1).then_some(3),
        ..Misbehaviour::default()
    });

    fates(workers).await;
    let outcome = served.end().await;

    assert_eq!(outcome.exit_code, 1);
    let said = "replicas differ after 4 steps: the loss of worker-";
    assert!(outcome.reason.starts_with(said), "{}", outcome.reason);
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
        "stopped after 6 of 8 steps (--stop-after 6): resume with --resume"
    );
    assert_eq!((outcome.exit_code, seen[0].exit_code), (0, Some(0)));
    assert_eq!(seen[0].steps.len(), 6);
    assert!(outcome.status.last_checkpoint.ends_with("step-00000006"));
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
