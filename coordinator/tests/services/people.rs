//! What people and their tools are told, of a run that goes on and of one that ends.

use std::time::{Duration, Instant};

use coordinator::run::Shutdown;
use proto::v1::{GetStatusRequest, Phase, SnapshotRunRequest, StopRequest, WatchStatusRequest};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::paused_run;
use crate::support::worker::{fates, spawn_all};
use crate::support::{PATIENCE, Served, external};

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
            by: String::new(),
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
