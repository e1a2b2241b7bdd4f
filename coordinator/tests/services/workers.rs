//! What workers are refused, and what they wait for.

use proto::v1::session_request::Message as Up;
use proto::v1::session_response::Message as Down;
use proto::v1::store_service_client::StoreServiceClient;
use proto::v1::worker_service_client::WorkerServiceClient;
use proto::v1::{
    GetRequest, Join, PutCheckpointRequest, SessionRequest, SetRequest, StoreScope,
    SubmitScoresRequest,
};
use tonic::Code;

use crate::paused_run;
use crate::support::collective::Collective;
use crate::support::worker::{Misbehaviour, fates, spawn, spawn_all};
use crate::support::{Served, external};

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
