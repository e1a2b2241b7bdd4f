//! A run over real sockets with workers that speak the protocol and compute nothing.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a part of tests, where both are fine"
)]

pub(crate) mod collective;
pub(crate) mod worker;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coordinator::observer::{Observer, RunEvent};
use coordinator::run::{
    Launch, Membership, Outcome, ResumePoint, RunError, RunSetup, Shutdown, serve,
};
use coordinator::store::{Recorded, Resume, Store};
use data::coco::{Class, Dataset, Group, Sample, Split};
use domain::run::{Budgets, World};
use domain::run_plan::RunShape;
use proto::v1::run_service_client::RunServiceClient;
use proto::v1::{Phase, RunSpec, Status};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// Long enough that only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const CLASSES: usize = 3;
pub(crate) const TRAIN: u32 = 26;
pub(crate) const VAL: u32 = 11;

/// A data set of which no picture exists.
pub(crate) fn dataset() -> Dataset {
    let classes = (0..CLASSES).map(|n| Class {
        name: format!("class {n}"),
        coco_id: n as u64 + 1,
        group: 0,
    });
    let split = |name: &str, samples: u32| Split {
        name: name.to_owned(),
        annotation_file: format!("/nowhere/{name}.json").into(),
        image_dir: format!("/nowhere/{name}").into(),
        num_classes: CLASSES,
        samples: (0..samples)
            .map(|n| Sample {
                image_id: u64::from(n) + 100 * name.len() as u64,
                file_name: format!("{n}.jpg"),
                // The third class has no positive.
                labels: match n % 3 {
                    0 => [0].into(),
                    1 => [0, 1].into(),
                    _ => [].into(),
                },
            })
            .collect(),
        unlabelled: 0,
        dropped: 0,
        warnings: Vec::new(),
    };
    Dataset {
        classes: classes.collect(),
        groups: vec![Group {
            name: "all".to_owned(),
            classes: (0..CLASSES).collect(),
        }],
        train: split("train", TRAIN),
        val: split("val", VAL),
    }
}

/// Two epochs of four steps: 26 samples in batches of eight.
pub(crate) fn shape() -> RunShape {
    RunShape {
        seed: 7,
        samples: TRAIN,
        val_samples: VAL,
        further_rows: 0,
        early_stopping: None,
        global_batch: 8,
        micro_batch: 2,
        epochs: 2,
        evaluate_every_epochs: 1,
        snapshot_every_steps: None,
        snapshot_every_epochs: Some(1),
    }
}

pub(crate) fn setup(run_dir: &Path, launch: Launch) -> RunSetup {
    RunSetup {
        run_id: "test-run".to_owned(),
        run_dir: run_dir.to_owned(),
        spec: RunSpec::default(),
        dataset: Arc::new(dataset()),
        shape: shape(),
        keep_checkpoints: 3,
        fault_timeout: Duration::from_secs(5),
        grace: Duration::from_secs(25),
        membership: Membership {
            world: World::Elastic,
            balance: false,
            halve_when_out_of_memory: false,
            min_workers: 1,
            budgets: Budgets {
                crash: 100,
                hang: 100,
                preemption: 100,
                memory: 0,
            },
        },
        adopt: false,
        resume: None,
        stop_after: None,
        launch,
    }
}

pub(crate) fn external(run_dir: &Path, workers: u32) -> RunSetup {
    setup(run_dir, Launch::External { workers })
}

pub(crate) fn resume_at(mut setup: RunSetup, step: u64) -> RunSetup {
    let checkpoint = setup.run_dir.join(format!("checkpoints/step-{step:08}"));
    setup.resume = Some(ResumePoint { step, checkpoint });
    setup
}

/// What a run has left on disk.
pub(crate) fn recorded(run_dir: &Path) -> Recorded {
    Store::open(&run_dir.join("run.redb"), "test-run", Resume::At(u64::MAX))
        .unwrap()
        .1
}

/// A run being served.
pub(crate) struct Served {
    pub(crate) address: String,
    pub(crate) shutdown: mpsc::Sender<Shutdown>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) events: broadcast::Receiver<RunEvent>,
    pub(crate) outcome: JoinHandle<Result<Outcome, RunError>>,
}

impl Served {
    pub(crate) async fn start(setup: RunSetup) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let observer = Observer::new();
        let (status, events) = (observer.status(), observer.events());
        let (shutdown, requests) = mpsc::channel(4);
        let outcome = tokio::spawn(serve(setup, listener, requests, observer));
        Self {
            address,
            shutdown,
            status,
            events,
            outcome,
        }
    }

    /// Waits until the status fulfils a condition.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        condition: impl Fn(&Status) -> bool,
    ) -> Status {
        let seen = tokio::time::timeout(PATIENCE, self.status.wait_for(condition)).await;
        if let Some(status) = seen.ok().and_then(Result::ok).map(|status| status.clone()) {
            return status;
        }
        panic!(
            "the run was never at: {what}; last: {:?}",
            self.status.borrow()
        )
    }

    pub(crate) async fn until_phase(&mut self, phase: Phase) -> Status {
        self.until(&format!("{phase:?}"), |status| status.phase() == phase)
            .await
    }

    pub(crate) async fn end(self) -> Outcome {
        tokio::time::timeout(PATIENCE, self.outcome)
            .await
            .expect("the run must come to an end")
            .expect("the run must not panic")
            .expect("the run must be served")
    }

    pub(crate) async fn people(&self) -> RunServiceClient<Channel> {
        RunServiceClient::connect(self.address.clone())
            .await
            .unwrap()
    }
}
