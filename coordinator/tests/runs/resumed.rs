//! Runs that go on from a checkpoint of an earlier process.

use coordinator::run::Shutdown;
use proto::v1::{GetHistoryRequest, Phase};

use crate::support::collective::Collective;
use crate::support::worker::{Misbehaviour, fates, spawn, spawn_all};
use crate::support::{Served, TRAIN, external, recorded, resume_at};
use crate::{trained, waiting_at};

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
            "stopped after 4 steps (asked by SIGTERM): resume with --resume"
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
