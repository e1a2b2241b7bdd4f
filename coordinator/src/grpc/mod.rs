//! The services of one port: `WorkerService` and `StoreService` for workers, `RunService` for people, health and
//! reflection. They check what comes from outside, translate, and pass it on; they decide nothing about the run.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proto::MAX_MESSAGE_BYTES;
use proto::v1::run_service_server::RunServiceServer;
use proto::v1::store_service_server::StoreServiceServer;
use proto::v1::worker_service_server::WorkerServiceServer;
use proto::v1::{self, Split};
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, watch};
use tonic::Status;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::server::HealthReporter;

use crate::checkpoint::Checkpoints;
use crate::driver::{Mail, Message};
use crate::evaluation::Evaluations;
use crate::evaluation::scores_folder::ScoresFolder;
use crate::history::History;

mod checkpoint_rpc;
mod dataset;
pub(crate) mod rendezvous;
mod run_service;
mod scores;
mod session;
mod store;
mod worker_service;

pub(crate) use scores::conclude_kept;

use rendezvous::{Live, Rendezvous};

/// What the services share.
pub(crate) struct Context {
    pub(crate) run_id: String,
    pub(crate) driver: Mail,
    /// The generation that may speak, if one is live.
    pub(crate) live: watch::Receiver<Option<u64>>,
    pub(crate) status: watch::Receiver<v1::Status>,
    pub(crate) rendezvous: Arc<Rendezvous>,
    pub(crate) evaluations: Evaluations,
    /// Held by whoever computes figures.
    concluding: Arc<tokio::sync::Mutex<()>>,
    pub(crate) scores: Arc<ScoresFolder>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) history: Arc<History>,
    pub(crate) dataset: Arc<data::coco::Dataset>,
    pub(crate) steps_per_epoch: u64,
    /// How long a new session may take to introduce itself.
    pub(crate) join_timeout: std::time::Duration,
    indices: [OnceCell<Arc<Vec<u8>>>; 2],
    sessions: AtomicU64,
}

impl Context {
    /// A context for these parts.
    #[expect(
        clippy::too_many_arguments,
        reason = "a constructor that names every part once"
    )]
    pub(crate) fn new(
        run_id: String,
        driver: Mail,
        live: watch::Receiver<Option<u64>>,
        status: watch::Receiver<v1::Status>,
        rendezvous: Arc<Rendezvous>,
        evaluations: Evaluations,
        scores: Arc<ScoresFolder>,
        checkpoints: Checkpoints,
        history: Arc<History>,
        dataset: Arc<data::coco::Dataset>,
        steps_per_epoch: u64,
        join_timeout: std::time::Duration,
    ) -> Self {
        Self {
            run_id,
            driver,
            live,
            status,
            rendezvous,
            evaluations,
            concluding: Arc::default(),
            scores,
            checkpoints,
            history,
            dataset,
            steps_per_epoch,
            join_timeout,
            indices: Default::default(),
            sessions: AtomicU64::new(1),
        }
    }

    /// That a request is of this run.
    fn check_run(&self, run_id: &str) -> Result<(), Status> {
        if run_id == self.run_id {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "this coordinator serves run {}, not {:?}: look up the address of the run you mean in its coordinator.json",
            self.run_id,
            crate::status::cut(run_id)
        )))
    }

    /// That a request is of the live generation.
    fn check_generation(&self, generation: u64) -> Result<(), Status> {
        let live = *self.live.borrow();
        if live == Some(generation) {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "generation {generation} is not live, {}: leave it and wait for the next generation",
            Live(live)
        )))
    }

    /// Tells the driver; an error means that the run is over.
    async fn tell(&self, message: Message) -> Result<(), Status> {
        self.driver
            .send(message)
            .await
            .map_err(|_| Status::unavailable("the run is over: nothing is taken any more"))
    }

    /// A number that no other session of this process has.
    fn next_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    /// The encoded index of a split, made once.
    async fn index(&self, split: Split) -> Result<Arc<Vec<u8>>, Status> {
        let (cell, of): (_, fn(&data::coco::Dataset) -> &data::coco::Split) = match split {
            Split::Train => (&self.indices[0], |dataset| &dataset.train),
            Split::Val => (&self.indices[1], |dataset| &dataset.val),
            Split::Unspecified => {
                return Err(Status::invalid_argument(
                    "the request names no split: ask for train or val",
                ));
            }
        };
        let encoded = cell
            .get_or_try_init(|| async {
                let dataset = Arc::clone(&self.dataset);
                tokio::task::spawn_blocking(move || Arc::new(of(&dataset).encode()))
                    .await
                    .map_err(|_| Status::internal("the index could not be encoded"))
            })
            .await?;
        Ok(Arc::clone(encoded))
    }
}

/// Serves until `end` is done, then until all streams are. The reporter can say that nobody should come any more.
pub(crate) async fn serve(
    context: Arc<Context>,
    listener: TcpListener,
    end: impl Future<Output = ()> + Send,
) -> Result<
    (
        HealthReporter,
        impl Future<Output = Result<(), tonic::transport::Error>>,
    ),
    ReflectionError,
> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let worker = WorkerServiceServer::new(worker_service::Worker(Arc::clone(&context)))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let store = StoreServiceServer::new(store::Store(Arc::clone(&context)))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let run = RunServiceServer::new(run_service::Run(context))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    health
        .set_serving::<RunServiceServer<run_service::Run>>()
        .await;
    health
        .set_serving::<WorkerServiceServer<worker_service::Worker>>()
        .await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder()
        .add_service(worker)
        .add_service(store)
        .add_service(run)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(incoming, end);
    Ok((health, server))
}

/// The compiled-in descriptors cannot be served.
pub(crate) type ReflectionError = tonic_reflection::server::Error;

/// Says through grpc.health.v1 that nobody should come any more.
pub(crate) async fn stop_serving(health: &HealthReporter) {
    health
        .set_not_serving::<RunServiceServer<run_service::Run>>()
        .await;
    health
        .set_not_serving::<WorkerServiceServer<worker_service::Worker>>()
        .await;
    health
        .set_service_status("", tonic_health::ServingStatus::NotServing)
        .await;
}
