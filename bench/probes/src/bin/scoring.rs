//! Times how fast a coordinator takes the scores of an evaluation, for `bench/metrics.py`.
//!
//! `scoring SAMPLES CLASSES REPEATS`: serves a run in this process, joins it over a socket as its one worker, which sends
//! scores as a real worker does and computes nothing, and prints one JSON object: for each evaluation the seconds from the
//! first call until all figures were there, and until all scores were held.

#![allow(clippy::print_stdout, reason = "its answer")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use coordinator::observer::{Observer, RunEvent};
use coordinator::run::{Launch, Membership, RunSetup, serve};
use data::coco::{Class, Dataset, Group, Sample, Split};
use domain::run::{Budgets, World};
use domain::run_plan::RunShape;
use proto::v1::plan_item::Item;
use proto::v1::session_request::Message as Up;
use proto::v1::session_response::Message as Down;
use proto::v1::worker_service_client::WorkerServiceClient;
use proto::v1::{
    Heartbeat, Join, PlanItem, Progress, Ready, SessionRequest, Standby, StepPlan,
    SubmitScoresRequest,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// Training samples, all of one step.
const TRAIN: u32 = 8;
/// As workers send them.
const ROWS_A_CALL: usize = 4096;
const ROWS_A_MESSAGE: usize = 1024;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [samples, classes, repeats] = arguments.as_slice() else {
        bail!("usage: scoring SAMPLES CLASSES REPEATS");
    };
    let (samples, classes): (u32, u16) = (samples.parse()?, classes.parse()?);
    let folder = tempfile::tempdir()?;
    let observer = Observer::new();
    let events = observer.events();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let setup = RunSetup {
        run_id: "scoring".to_owned(),
        run_dir: folder.path().join("run"),
        spec: proto::v1::RunSpec::default(),
        dataset: Arc::new(dataset(samples, classes)),
        shape: RunShape {
            seed: 0,
            samples: TRAIN,
            val_samples: samples,
            further_rows: 0,
            early_stopping: None,
            global_batch: TRAIN,
            micro_batch: TRAIN,
            epochs: repeats.parse()?,
            evaluate_every_epochs: 1,
            snapshot_every_steps: None,
            snapshot_every_epochs: None,
        },
        keep_checkpoints: 1,
        fault_timeout: Duration::from_secs(60),
        grace: Duration::from_secs(25),
        membership: Membership {
            world: World::Elastic,
            balance: false,
            halve_when_out_of_memory: false,
            min_workers: 1,
            budgets: Budgets {
                crash: 0,
                hang: 0,
                preemption: 0,
                memory: 0,
            },
        },
        adopt: false,
        resume: None,
        stop_after: None,
        launch: Launch::External { workers: 1 },
    };
    let (shutdown, requests) = mpsc::channel(1);
    let run = tokio::spawn(serve(setup, listener, requests, observer));
    let channel = Channel::from_shared(address)?.connect().await?;
    let seconds = Worker::join(channel, usize::from(classes), events)
        .await?
        .work(repeats.parse()?)
        .await?;
    drop(shutdown);
    run.abort();
    println!(
        "{}",
        json!({ "samples": samples, "held_seconds": seconds.0, "figures_seconds": seconds.1 })
    );
    Ok(())
}

/// A data set of which no picture exists; a picture of validation shows three classes.
fn dataset(samples: u32, classes: u16) -> Dataset {
    let split = |name: &str, count: u32| Split {
        name: name.to_owned(),
        annotation_file: format!("/nowhere/{name}.json").into(),
        image_dir: format!("/nowhere/{name}").into(),
        num_classes: usize::from(classes),
        samples: (0..count)
            .map(|n| Sample {
                image_id: u64::from(n) + 1_000_000 * name.len() as u64,
                file_name: format!("{n}.jpg"),
                labels: [0, 1, 2]
                    .map(|k| ((n * 7 + k * 29) % u32::from(classes)) as u16)
                    .into(),
            })
            .collect(),
        unlabelled: 0,
        dropped: 0,
        warnings: Vec::new(),
    };
    Dataset {
        classes: (0..classes)
            .map(|n| Class {
                name: format!("class {n}"),
                coco_id: u64::from(n) + 1,
                group: 0,
            })
            .collect(),
        groups: vec![Group {
            name: "all".to_owned(),
            classes: (0..usize::from(classes)).collect(),
        }],
        train: split("train", TRAIN),
        val: split("val", samples),
    }
}

struct Worker {
    client: WorkerServiceClient<Channel>,
    up: mpsc::UnboundedSender<SessionRequest>,
    down: Streaming<proto::v1::SessionResponse>,
    events: broadcast::Receiver<RunEvent>,
    classes: usize,
    run_id: String,
    generation: u64,
}

impl Worker {
    async fn join(
        channel: Channel,
        classes: usize,
        events: broadcast::Receiver<RunEvent>,
    ) -> Result<Self> {
        let mut client = WorkerServiceClient::new(channel);
        let (up, messages) = mpsc::unbounded_channel();
        let join = Join {
            worker_id: "scorer".to_owned(),
            host: "here".to_owned(),
            pid: std::process::id(),
            device: "cpu".to_owned(),
            device_name: "nothing".to_owned(),
            threads: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Join::default()
        };
        up.send(SessionRequest {
            message: Some(Up::Join(join)),
        })?;
        let session = client
            .session(UnboundedReceiverStream::new(messages))
            .await?;
        Ok(Self {
            client,
            up,
            down: session.into_inner(),
            events,
            classes,
            run_id: String::new(),
            generation: 0,
        })
    }

    /// Follows the plan through so many evaluations. Seconds until all scores were held, and until all figures were there.
    async fn work(mut self, evaluations: usize) -> Result<(Vec<f64>, Vec<f64>)> {
        let (mut held, mut figures) = (Vec::new(), Vec::new());
        let mut begun = None;
        loop {
            let message = self.down.message().await?.context("the session ended")?;
            match message.message {
                Some(Down::Welcome(welcome)) => {
                    self.run_id = welcome.run_id;
                    self.say(Up::Standby(Standby::default()))?;
                }
                Some(Down::Generation(sent)) => {
                    self.generation = sent.number;
                    self.say(Up::Ready(Ready {
                        generation: sent.number,
                        initial_state: "nothing".to_owned(),
                        parameters: 1,
                    }))?;
                }
                Some(Down::Plan(plan)) => {
                    for PlanItem { item } in plan.items {
                        match item {
                            Some(Item::Step(step)) => self.train(&step)?,
                            Some(Item::Evaluation(plan)) => {
                                // A large evaluation comes in parts.
                                let began = *begun.get_or_insert_with(Instant::now);
                                self.score(plan.step, &plan.sample_ids).await?;
                                if !plan.last {
                                    continue;
                                }
                                begun = None;
                                held.push(began.elapsed().as_secs_f64());
                                self.evaluated(plan.step).await?;
                                figures.push(began.elapsed().as_secs_f64());
                                if figures.len() == evaluations {
                                    return Ok((held, figures));
                                }
                            }
                            _ => {}
                        }
                    }
                }
                Some(Down::Refused(refused)) => bail!("refused: {}", refused.reason),
                Some(Down::Release(release)) => bail!("released: {}", release.reason),
                _ => {}
            }
        }
    }

    fn say(&self, message: Up) -> Result<()> {
        let message = Some(message);
        Ok(self.up.send(SessionRequest { message })?)
    }

    fn train(&self, plan: &StepPlan) -> Result<()> {
        let ids = || {
            let batches = plan.micro_batches.iter();
            batches.flat_map(|batch| batch.sample_ids.iter().copied())
        };
        self.say(Up::Progress(Progress {
            generation: self.generation,
            step: plan.step,
            samples: u32::try_from(ids().count())?,
            samples_in_step: plan.samples_in_step,
            loss: 1.0,
            step_micros: 1000,
            samples_digest: proto::samples_digest(ids()),
            ..Progress::default()
        }))?;
        self.say(Up::Heartbeat(Heartbeat {
            generation: self.generation,
            step: plan.step + 1,
            ..Heartbeat::default()
        }))
    }

    /// Sends scores as a worker does: a call for some thousand rows, in messages.
    async fn score(&mut self, step: u64, sample_ids: &[u32]) -> Result<()> {
        for rows in sample_ids.chunks(ROWS_A_CALL) {
            let messages: Vec<SubmitScoresRequest> = rows
                .chunks(ROWS_A_MESSAGE)
                .map(|ids| SubmitScoresRequest {
                    online: false,
                    run_id: self.run_id.clone(),
                    generation: self.generation,
                    step,
                    sample_ids: ids.to_vec(),
                    logits: ids
                        .iter()
                        .flat_map(|&id| (0..self.classes as u32).map(move |class| logit(id, class)))
                        .collect(),
                    skipped: Vec::new(),
                })
                .collect();
            self.client
                .submit_scores(tokio_stream::iter(messages))
                .await?;
        }
        Ok(())
    }

    /// Waits for the figures of the state after `step` steps.
    async fn evaluated(&mut self, step: u64) -> Result<()> {
        loop {
            match self.events.recv().await {
                Ok(RunEvent::Evaluated { step: of, .. }) if of == step => return Ok(()),
                Ok(RunEvent::Warning(text)) => bail!("warning: {text}"),
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(closed) => return Err(closed.into()),
            }
        }
    }
}

/// Some number of its own for each decision.
fn logit(sample: u32, class: u32) -> f32 {
    let mixed = (sample * 80 + class).wrapping_mul(0x9E37_79B9) ^ 0x5bd1_e995;
    (mixed >> 8) as f32 / 4e6 - 3.0
}
