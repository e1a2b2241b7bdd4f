//! What the services refuse, hold back and end.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, where both are fine"
)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use coordinator::run::Shutdown;
use proto::v1::session_request::Message as Up;
use proto::v1::session_response::Message as Down;
use proto::v1::store_service_client::StoreServiceClient;
use proto::v1::worker_service_client::WorkerServiceClient;
use proto::v1::{
    GetRequest, GetStatusRequest, Join, Phase, PutCheckpointRequest, SessionRequest, SetRequest,
    SnapshotRunRequest, StopRequest, StoreScope, SubmitScoresRequest, WatchStatusRequest,
};
use support::collective::Collective;
use support::worker::{Misbehaviour, fates, spawn, spawn_all};
use support::{PATIENCE, Served, external};
use tokio::sync::Notify;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

/// A run of two workers that stand before step 2, and what lets the second go on.
async fn paused_run(
    served: &mut Served,
) -> (
    Vec<tokio::task::JoinHandle<support::worker::Seen>>,
    Arc<Notify>,
) {
    let (collective, resume) = (Collective::default(), Arc::new(Notify::new()));
    let paused = Misbehaviour {
        pause_at: Some((2, Arc::clone(&resume))),
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
    (workers, resume)
}

#[tokio::test]
async fn a_stale_generation_is_refused_by_every_service() {
    // Given a run in generation 1
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(external(dir.path(), 2)).await;
    let (workers, resume) = paused_run(&mut served).await;
    let mut store = StoreServiceClient::connect(served.address.clone())
        .await
        .unwrap();
    let mut client = WorkerServiceClient::connect(served.address.clone())
        .await
        .unwrap();

    // When something speaks for another one
    let run_id = || "test-run".to_owned();
    let scope = Some(StoreScope {
        run_id: run_id(),
        generation: 9,
    });
    let set = SetRequest {
        scope: scope.clone(),
        key: "k".to_owned(),
        value: vec![1],
    };
    let scores = SubmitScoresRequest {
        run_id: run_id(),
        generation: 9,
        step: 4,
        ..Default::default()
    };
    let put = PutCheckpointRequest {
        run_id: run_id(),
        generation: 9,
        step: 4,
        ..Default::default()
    };
    let refusals = [
        store.set(set).await.unwrap_err(),
        client
            .submit_scores(tokio_stream::iter([scores]))
            .await
            .unwrap_err(),
        client
            .put_checkpoint(tokio_stream::iter([put]))
            .await
            .unwrap_err(),
    ];

    // Then it is told which one is live
    for refusal in refusals {
        assert_eq!(refusal.code(), Code::FailedPrecondition);
        assert!(
            refusal
                .message()
                .starts_with("generation 9 is not live, generation 1 is"),
            "{refusal:?}"
        );
    }
    // and another run's request is refused by name
    let scope = Some(StoreScope {
        run_id: "other".to_owned(),
        generation: 1,
    });
    let set = SetRequest {
        scope,
        key: "k".to_owned(),
        value: vec![1],
    };
    let refusal = store.set(set).await.unwrap_err();
    assert!(
        refusal
            .message()
            .starts_with("this coordinator serves run test-run, not \"other\"")
    );
    resume.notify_one();
    fates(workers).await;
    served.end().await;
}

#[tokio::test]
async fn a_get_from_the_store_waits_for_the_set_or_for_its_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(external(dir.path(), 2)).await;
    let (workers, resume) = paused_run(&mut served).await;
    let scope = Some(StoreScope {
        run_id: "test-run".to_owned(),
        generation: 1,
    });
    let mut store = StoreServiceClient::connect(served.address.clone())
        .await
        .unwrap();

    let get = |timeout_millis| GetRequest {
        scope: scope.clone(),
        key: "late".to_owned(),
        timeout_millis,
    };
    let refusal = store.get(get(20)).await.unwrap_err();
    assert_eq!(refusal.code(), Code::DeadlineExceeded);
    assert!(refusal.message().contains("\"late\""), "{refusal:?}");

    let mut waiting = store.clone();
    let request = get(30_000);
    let (answer, _) = tokio::join!(waiting.get(request), async {
        let set = SetRequest {
            scope: scope.clone(),
            key: "late".to_owned(),
            value: b"here".to_vec(),
        };
        store.set(set).await.unwrap()
    });
    assert_eq!(answer.unwrap().into_inner().value, b"here");
    resume.notify_one();
    fates(workers).await;
    served.end().await;
}

#[tokio::test]
async fn strangers_are_refused_with_a_sentence_and_an_exit_code() {
    // Given a run that has one of its two workers
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(external(dir.path(), 2)).await;
    let collective = Collective::default();
    let first = spawn(&served.address, "a", &collective, Misbehaviour::default());
    let status = served
        .until("one joined", |status| status.workers.len() == 1)
        .await;
    assert_eq!(status.reason, "waiting for 1 of 2 workers: 1 has joined");

    // When others come who do not fit
    let join = |worker_id: &str, version: &str, run_id: &str| Join {
        worker_id: worker_id.to_owned(),
        version: version.to_owned(),
        run_id: run_id.to_owned(),
        ..Join::default()
    };
    let own = env!("CARGO_PKG_VERSION");
    let cases = [
        (join("a", own, ""), "a worker named a has joined already"),
        (
            join("b", "0.0.0", ""),
            "worker version \"0.0.0\" differs from the coordinator's",
        ),
        (
            join("b", own, "other"),
            "this coordinator serves run test-run, not other",
        ),
        (join("", own, ""), "worker id \"\" is not a name"),
    ];
    for (join, said) in cases {
        let (exit_code, reason) = refused(&served.address, join).await;
        assert!(reason.starts_with(said), "{reason}");
        assert_eq!(exit_code, 64);
    }

    // Then the run goes on with those who do
    let second = spawn(&served.address, "b", &collective, Misbehaviour::default());
    let seen = fates(vec![first, second]).await;
    assert_eq!((seen[0].exit_code, seen[1].exit_code), (Some(0), Some(0)));
    assert_eq!(served.end().await.exit_code, 0);
}

async fn refused(address: &str, join: Join) -> (u32, String) {
    let mut client = WorkerServiceClient::connect(address.to_owned())
        .await
        .unwrap();
    let messages = tokio_stream::iter([SessionRequest {
        message: Some(Up::Join(join)),
    }]);
    let mut down = client.session(messages).await.unwrap().into_inner();
    match down.message().await.unwrap().unwrap().message.unwrap() {
        Down::Refused(refused) => (refused.exit_code, refused.reason),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_graceful_end_does_not_wait_for_open_watchers_and_tells_each_the_end() {
    // Given a run that trains, three who watch, and one who never reads
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(external(dir.path(), 2)).await;
    let (workers, resume) = paused_run(&mut served).await;
    let mut watchers = Vec::new();
    for _ in 0..3 {
        let mut people = served.people().await;
        watchers.push(tokio::spawn(async move {
            let mut stream = people
                .watch_status(WatchStatusRequest {})
                .await
                .unwrap()
                .into_inner();
            let mut last = None;
            while let Some(answer) = stream.message().await.unwrap() {
                last = answer.status;
            }
            last.unwrap()
        }));
    }
    let mut deaf = served.people().await;
    let _never_read = deaf.watch_status(WatchStatusRequest {}).await.unwrap();
    let channel = Channel::from_shared(served.address.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut health = HealthClient::new(channel);
    let request = HealthCheckRequest {
        service: "hgat.v1.RunService".to_owned(),
    };
    let serving = health.check(request.clone()).await.unwrap().into_inner();
    assert_eq!(serving.status, 1, "SERVING");
    let mut changes = health.watch(request).await.unwrap().into_inner();

    // When it is stopped
    let asked = Instant::now();
    served.shutdown.send(Shutdown::Terminate).await.unwrap();
    let status = served.until_phase(Phase::Stopping).await;
    assert_eq!(
        status.reason,
        "stopping (asked by SIGTERM): waiting for worker-0 and worker-1 to reach a step boundary, \
         hand over a checkpoint and leave"
    );
    resume.notify_one();
    fates(workers).await;
    let outcome = served.end().await;

    // Then it ends within five seconds, and everyone who listens knows
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(outcome.exit_code, 0);
    for watcher in watchers {
        let last = tokio::time::timeout(PATIENCE, watcher)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(last.phase(), Phase::Stopped);
        assert_eq!(last.reason, outcome.reason);
    }
    let not_serving = async {
        while let Ok(Some(change)) = changes.message().await {
            if change.status == 2 {
                return true;
            }
        }
        false
    };
    assert!(
        tokio::time::timeout(PATIENCE, not_serving).await.unwrap(),
        "health says NOT_SERVING"
    );
}

#[tokio::test]
async fn a_stop_over_grpc_says_what_will_happen() {
    // Given a run that waits for workers
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(external(dir.path(), 2)).await;
    served.until_phase(Phase::Waiting).await;
    let mut people = served.people().await;

    // Then no snapshot can be had, with the reason
    let refusal = people.snapshot(SnapshotRunRequest {}).await.unwrap_err();
    assert_eq!(
        refusal.message(),
        "no checkpoint can be taken now: waiting for 2 of 2 workers: none has joined"
    );
    // and a stop ends it
    let answer = people
        .stop(StopRequest {
            reason: "lunch".to_owned(),
        })
        .await
        .unwrap();
    assert_eq!(
        answer.into_inner().reason,
        "the run ends before its first step"
    );
    let outcome = served.end().await;
    assert_eq!(outcome.exit_code, 0);
    assert_eq!(
        outcome.reason,
        "stopped before the first step (asked by a request over gRPC: lunch)"
    );
}

#[tokio::test]
async fn a_snapshot_over_grpc_is_taken_at_the_next_step_and_training_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(external(dir.path(), 2)).await;
    let (workers, resume) = paused_run(&mut served).await;
    let mut people = served.people().await;

    people.snapshot(SnapshotRunRequest {}).await.unwrap();
    resume.notify_one();
    fates(workers).await;
    let outcome = served.end().await;

    assert_eq!(outcome.exit_code, 0);
    assert!(
        dir.path()
            .join("checkpoints/step-00000003/manifest.json")
            .exists()
    );
}

#[tokio::test]
async fn a_request_over_the_size_limit_is_refused_and_the_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(external(dir.path(), 1)).await;
    let mut store = StoreServiceClient::connect(served.address.clone())
        .await
        .unwrap();
    let scope = Some(StoreScope {
        run_id: "test-run".to_owned(),
        generation: 1,
    });
    let value = vec![0; proto::MAX_MESSAGE_BYTES + 1];
    let refusal = store
        .set(SetRequest {
            scope,
            key: "k".to_owned(),
            value,
        })
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Code::OutOfRange, "{refusal:?}");
    fates(spawn_all(&served.address, 1)).await;
    assert_eq!(served.end().await.exit_code, 0);
}

#[tokio::test]
async fn the_status_names_every_worker_and_its_rank() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(external(dir.path(), 2)).await;
    let (workers, resume) = paused_run(&mut served).await;
    let mut people = served.people().await;

    let status = people
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner()
        .status
        .unwrap();

    assert_eq!(status.reason, "training epoch 1 of 2");
    let ranks: Vec<_> = status
        .workers
        .iter()
        .map(|w| (w.worker_id.as_str(), w.rank, w.pid))
        .collect();
    assert_eq!(
        ranks,
        [("worker-0", Some(0), 4242), ("worker-1", Some(1), 4242)]
    );
    assert!((status.loss - 0.75).abs() < 1e-12);
    assert!((status.data_wait_fraction - 0.25).abs() < 1e-12);
    assert!((status.images_per_second - 8000.0).abs() < 1e-9);
    resume.notify_one();
    fates(workers).await;
    served.end().await;
}

#[tokio::test]
async fn reflection_lists_the_services_for_tools_such_as_grpcurl() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(external(dir.path(), 1)).await;
    let channel = Channel::from_shared(served.address.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let mut client = ServerReflectionClient::new(channel);
    let stream = client
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .unwrap();
    let answer = stream
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else {
        panic!("not a list: {answer:?}")
    };
    let names: Vec<_> = list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    for name in [
        "hgat.v1.RunService",
        "hgat.v1.WorkerService",
        "hgat.v1.StoreService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
    fates(spawn_all(&served.address, 1)).await;
    served.end().await;
}
