//! A worker that follows its plan, computing nothing.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex};

use domain::average_precision::mean_average_precision;
use domain::labels::Labels;
use domain::scores::{Layout, ScoreMatrix};
use proto::v1::fault::Class;
use proto::v1::leaving::Reason;
use proto::v1::plan_item::Item;
use proto::v1::session_request::Message as Up;
use proto::v1::session_response::Message as Down;
use proto::v1::store_service_client::StoreServiceClient;
use proto::v1::worker_service_client::WorkerServiceClient;
use proto::v1::{
    Fault, Generation, GetDatasetRequest, GetRequest, Heartbeat, Join, Leaving, Progress,
    PutCheckpointRequest, Ready, SessionRequest, SetRequest, Split, Standby, StepPlan, StoreScope,
    SubmitScoresRequest,
};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

use super::collective::{Broken, Collective};
use super::{CLASSES, VAL};

/// What a worker does wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Misbehaviour {
    /// Drop the stream instead of doing this step, as a death does.
    pub(crate) die_at: Option<u64>,
    /// The same in the middle of the evaluation after so many steps.
    pub(crate) die_in_evaluation: Option<u64>,
    /// End the process by SIGKILL instead of doing this step.
    pub(crate) kill_at: Option<u64>,
    /// Report this fault instead of doing this step.
    pub(crate) fault_at: Option<(u64, Class, String)>,
    /// Report another loss than the others for this step.
    pub(crate) differ_at: Option<u64>,
    /// Wait for a stop before doing this step.
    pub(crate) await_stop_at: Option<u64>,
    /// Wait here until told before doing this step.
    pub(crate) pause_at: Option<(u64, Arc<Notify>)>,
}

/// What became of a worker.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) exit_code: Option<u32>,
    pub(crate) reason: String,
    pub(crate) rank: u32,
    /// With the generation that did each.
    pub(crate) steps: Vec<(u64, StepPlan)>,
    pub(crate) scored: Vec<u32>,
    pub(crate) died: bool,
}

#[derive(Debug, Default)]
struct Inbox {
    generation: Option<Generation>,
    items: VecDeque<Item>,
    stop: bool,
    snapshot: bool,
    /// The generation that is over, and whether its members leave at a step boundary.
    regroup: Option<(u64, bool)>,
    run_id: String,
    /// Exit code and reason, once the session is over.
    over: Option<(u32, String)>,
}

#[derive(Debug, Clone, Default)]
struct Session {
    inbox: Arc<Mutex<Inbox>>,
    changed: Arc<Notify>,
}

impl Session {
    /// Waits for something to take, unless `generation` (0: none) is over first.
    async fn wait<T>(
        &self,
        generation: u64,
        mut take: impl FnMut(&mut Inbox) -> Option<T>,
    ) -> Result<T, End> {
        loop {
            let changed = self.changed.notified();
            {
                let mut inbox = self.inbox.lock().unwrap();
                if let Some(over) = &inbox.over {
                    return Err(End::Released(over.clone()));
                }
                if generation != 0 && inbox.regroup == Some((generation, false)) {
                    return Err(End::Regroup);
                }
                if let Some(taken) = take(&mut inbox) {
                    return Ok(taken);
                }
            }
            changed.await;
        }
    }
}

/// Why a worker stops doing what it does.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// The coordinator let it go, with exit code and reason, or is gone.
    Released((u32, String)),
    /// Its generation is over.
    Regroup,
    /// It died.
    Died,
}

/// The score that every worker gives to a sample: with ties, and not in the order of the labels.
pub(crate) fn logit(sample: u32, class: usize) -> f32 {
    ((sample * 7 + class as u32 * 3) % 5) as f32 - 2.0
}

/// The mAP of those scores, straight from the domain.
pub(crate) fn expected_map() -> f64 {
    let scores: Vec<f32> = (0..VAL)
        .flat_map(|sample| (0..CLASSES).map(move |class| logit(sample, class)))
        .collect();
    let mut labels = Labels::new(VAL, CLASSES as u32);
    for (sample, picture) in (0..).zip(&super::dataset().val.samples) {
        for &class in &picture.labels {
            labels.insert(sample, u32::from(class)).unwrap();
        }
    }
    let matrix = ScoreMatrix::new(&scores, VAL, CLASSES as u32, Layout::SampleMajor).unwrap();
    mean_average_precision(&matrix, &labels)
        .unwrap()
        .map
        .unwrap()
}

/// A worker of its world. `id` is its name; `collective` joins it to its peers.
pub(crate) fn spawn(
    address: &str,
    id: &str,
    collective: &Collective,
    misbehaviour: Misbehaviour,
) -> tokio::task::JoinHandle<Seen> {
    let (address, id, collective) = (address.to_owned(), id.to_owned(), collective.clone());
    tokio::spawn(async move {
        let mut worker = Worker::join(&address, &id, collective, misbehaviour).await;
        match worker.work().await {
            End::Released((code, reason)) => {
                (worker.seen.exit_code, worker.seen.reason) = (Some(code), reason);
            }
            _ => worker.seen.died = true,
        }
        worker.seen
    })
}

/// A whole world of well-behaved workers.
pub(crate) fn spawn_all(address: &str, world_size: u32) -> Vec<tokio::task::JoinHandle<Seen>> {
    spawn_world(address, world_size, |_| Misbehaviour::default())
}

/// A whole world of workers `worker-0`, `worker-1`, …, each doing wrong what `misbehaviour` says of its number.
pub(crate) fn spawn_world(
    address: &str,
    world_size: u32,
    misbehaviour: impl Fn(u32) -> Misbehaviour,
) -> Vec<tokio::task::JoinHandle<Seen>> {
    let collective = Collective::default();
    (0..world_size)
        .map(|n| {
            spawn(
                address,
                &format!("worker-{n}"),
                &collective,
                misbehaviour(n),
            )
        })
        .collect()
}

pub(crate) struct Worker {
    client: WorkerServiceClient<Channel>,
    store: StoreServiceClient<Channel>,
    up: Option<mpsc::UnboundedSender<SessionRequest>>,
    session: Session,
    collective: Collective,
    misbehaviour: Misbehaviour,
    generation: u64,
    world_size: u32,
    step: u64,
    seen: Seen,
}

impl Worker {
    pub(crate) async fn join(
        address: &str,
        id: &str,
        collective: Collective,
        misbehaviour: Misbehaviour,
    ) -> Self {
        let channel = Channel::from_shared(address.to_owned())
            .unwrap()
            .connect()
            .await
            .unwrap();
        let mut client = WorkerServiceClient::new(channel.clone());
        let (up, messages) = mpsc::unbounded_channel();
        let join = Join {
            worker_id: id.to_owned(),
            host: "here".to_owned(),
            pid: 4242,
            device: "cpu".to_owned(),
            device_name: "no device".to_owned(),
            threads: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Join::default()
        };
        up.send(SessionRequest {
            message: Some(Up::Join(join)),
        })
        .unwrap();
        let session = Session::default();
        let mut down = client
            .session(UnboundedReceiverStream::new(messages))
            .await
            .unwrap()
            .into_inner();
        let filing = session.clone();
        tokio::spawn(async move {
            let over = loop {
                match down.message().await {
                    Ok(Some(message)) => file(&filing, message.message.unwrap()),
                    Ok(None) => break (75, "the stream ended".to_owned()),
                    Err(status) => break (75, status.message().to_owned()),
                }
            };
            filing.inbox.lock().unwrap().over.get_or_insert(over);
            filing.changed.notify_waiters();
        });
        Self {
            client,
            store: StoreServiceClient::new(channel),
            up: Some(up),
            session,
            collective,
            misbehaviour,
            generation: 0,
            world_size: 0,
            step: 0,
            seen: Seen::default(),
        }
    }

    fn say(&self, message: Up) {
        if let Some(up) = &self.up {
            let _ = up.send(SessionRequest {
                message: Some(message),
            });
        }
    }

    /// Works until released or dead.
    async fn work(&mut self) -> End {
        for split in [Split::Train, Split::Val] {
            if let Err(end) = self.fetch_index(split).await {
                return end;
            }
        }
        let mut holds = None;
        loop {
            let generation = self.generation;
            self.say(Up::Standby(Standby {
                generation,
                step: holds,
            }));
            match self.attend().await {
                Err(End::Regroup) => holds = Some(self.step),
                Err(end) => return end,
                Ok(()) => unreachable!("a generation ends only by a release or another one"),
            }
        }
    }

    /// Waits for the next generation and works in it.
    async fn attend(&mut self) -> Result<(), End> {
        let generation = self
            .session
            .wait(0, |inbox| inbox.generation.take())
            .await?;
        self.set_up(&generation).await?;
        loop {
            let generation = self.generation;
            let item = self
                .session
                .wait(generation, |inbox| inbox.items.pop_front())
                .await?;
            match item {
                Item::Step(plan) => {
                    self.misbehave(plan.step).await?;
                    self.train(plan).await?;
                }
                Item::Evaluation(plan) => {
                    if self.misbehaviour.die_in_evaluation == Some(plan.step) {
                        let half = plan.sample_ids.len() / 2;
                        self.evaluate(plan.step, &plan.sample_ids[..half]).await?;
                        return self.die();
                    }
                    self.evaluate(plan.step, &plan.sample_ids).await?;
                    if plan.last && self.agree(&format!("evaluation {}", plan.step)).await? {
                        self.stop().await?;
                    }
                }
                Item::Snapshot(plan) => self.snapshot(plan.step).await?,
                Item::Finish(_) => return self.leave(Reason::Finished).await,
            }
        }
    }

    fn die(&mut self) -> Result<(), End> {
        self.up = None;
        self.collective.tear(self.generation);
        Err(End::Died)
    }

    async fn fetch_index(&mut self, split: Split) -> Result<(), End> {
        let run_id = self
            .session
            .wait(0, |inbox| {
                (!inbox.run_id.is_empty()).then(|| inbox.run_id.clone())
            })
            .await?;
        let request = GetDatasetRequest {
            run_id,
            split: split.into(),
        };
        let mut stream = self.client.get_dataset(request).await.unwrap().into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await.unwrap() {
            bytes.extend(part.chunk);
        }
        let index = data::coco::Split::decode(&bytes).unwrap();
        let sent = super::dataset();
        let wanted = if split == Split::Train {
            sent.train
        } else {
            sent.val
        };
        if std::env::var_os("HGAT_FAKE_PICKED").is_some() {
            // A dry run sends a part of them, in its own order and some more than once.
            let known = |sample| wanted.samples.contains(sample);
            assert!(!index.samples.is_empty() && index.samples.iter().all(known));
        } else {
            assert_eq!(index.samples, wanted.samples);
        }
        Ok(())
    }

    /// Forms the process group: every rank publishes an address and waits for the others'.
    async fn set_up(&mut self, generation: &Generation) -> Result<(), End> {
        self.generation = generation.number;
        self.world_size = generation.world_size;
        self.step = generation.begins_at_step;
        self.seen.rank = generation.rank;
        let run_id = self.session.inbox.lock().unwrap().run_id.clone();
        let scope = Some(StoreScope {
            run_id,
            generation: generation.number,
        });
        let (key, value) = (
            format!("rank/{}", generation.rank),
            vec![generation.rank as u8],
        );
        self.store
            .set(SetRequest {
                scope: scope.clone(),
                key,
                value,
            })
            .await
            .ok();
        for rank in 0..generation.world_size {
            let request = GetRequest {
                scope: scope.clone(),
                key: format!("rank/{rank}"),
                timeout_millis: 30_000,
            };
            match self.store.get(request).await {
                Ok(value) => assert_eq!(value.into_inner().value, [rank as u8]),
                // The generation ended before it stood.
                Err(_) => {
                    let generation = self.generation;
                    self.session.wait(generation, |_| None::<()>).await?;
                }
            }
        }
        self.say(Up::Heartbeat(Heartbeat {
            generation: self.generation,
            ..Heartbeat::default()
        }));
        self.say(Up::Ready(Ready {
            generation: self.generation,
            initial_state: "nothing".to_owned(),
            parameters: 0,
        }));
        Ok(())
    }

    /// Does what is wrong at this step.
    async fn misbehave(&mut self, step: u64) -> Result<(), End> {
        let generation = self.generation;
        if let Some((at, resume)) = self.misbehaviour.pause_at.clone()
            && at == step
        {
            // A paused worker still hears that it is released.
            tokio::select! {
                () = resume.notified() => {}
                over = self.session.wait(generation, |_| None::<()>) => return over,
            }
        }
        if self.misbehaviour.await_stop_at == Some(step) {
            self.session
                .wait(generation, |inbox| inbox.stop.then_some(()))
                .await?;
        }
        if self.misbehaviour.kill_at == Some(step) {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap();
        }
        if self.misbehaviour.die_at == Some(step) {
            return self.die();
        }
        if let Some((at, class, message)) = self.misbehaviour.fault_at.clone()
            && at == step
        {
            self.fault(class, message);
            self.collective.tear(generation);
            self.session.wait(0, |_| None::<()>).await?;
        }
        Ok(())
    }

    fn fault(&self, class: Class, message: String) {
        self.say(Up::Fault(Fault {
            generation: self.generation,
            step: self.step,
            class: class.into(),
            message,
        }));
    }

    /// A collective, or the report of its failure and the wait for the release.
    async fn reduce(&self, name: &str, value: u32) -> Result<u32, End> {
        let generation = self.generation;
        // A released worker does not wait for its peers: real ones end their process.
        let reduced = tokio::select! {
            reduced = self.collective.all_reduce((generation, self.world_size), name, value) => reduced,
            over = self.session.wait(generation, |_| None::<u32>) => {
                // Real ones close their connections, which ends the collective for their peers.
                self.collective.tear(generation);
                return over;
            }
        };
        match reduced {
            Ok(sum) => Ok(sum),
            Err(Broken) => {
                self.fault(Class::Collective, "connection closed by peer".to_owned());
                self.session.wait(generation, |_| None::<u32>).await
            }
        }
    }

    async fn agree(&self, name: &str) -> Result<bool, End> {
        let stop = self.session.inbox.lock().unwrap().stop;
        Ok(self.reduce(name, u32::from(stop)).await? > 0)
    }

    async fn train(&mut self, plan: StepPlan) -> Result<(), End> {
        assert_eq!(plan.step, self.step, "steps come in order");
        let stop = self.agree(&format!("step {}", plan.step)).await?;
        let snapshot = std::mem::take(&mut self.session.inbox.lock().unwrap().snapshot);
        let snapshot = self
            .reduce(&format!("snapshot {}", plan.step), u32::from(snapshot))
            .await?
            > 0;
        let boundary = self.session.inbox.lock().unwrap().regroup == Some((self.generation, true));
        let boundary = self
            .reduce(&format!("boundary {}", plan.step), u32::from(boundary))
            .await?
            > 0;
        self.step += 1;
        let off = if self.misbehaviour.differ_at == Some(plan.step) {
            0.5
        } else {
            0.0
        };
        self.say(Up::Progress(Progress {
            generation: self.generation,
            step: plan.step,
            samples: plan
                .micro_batches
                .iter()
                .map(|batch| batch.sample_ids.len() as u32)
                .sum(),
            samples_in_step: plan.samples_in_step,
            loss: 1.0 / (1.0 + plan.step as f64) + off,
            step_micros: 1000,
            data_wait_micros: 250,
            samples_digest: proto::samples_digest(
                plan.micro_batches
                    .iter()
                    .flat_map(|batch| batch.sample_ids.clone()),
            ),
            ..Progress::default()
        }));
        self.seen.steps.push((self.generation, plan));
        if snapshot {
            self.snapshot(self.step).await?;
        }
        if stop {
            return self.stop().await;
        }
        if boundary { Err(End::Regroup) } else { Ok(()) }
    }

    async fn evaluate(&mut self, step: u64, sample_ids: &[u32]) -> Result<(), End> {
        let run_id = self.session.inbox.lock().unwrap().run_id.clone();
        let generation = self.generation;
        // In several messages, and the first one twice: a retry changes nothing.
        let mut requests: Vec<_> = sample_ids
            .chunks(2)
            .map(|ids| SubmitScoresRequest {
                online: false,
                run_id: run_id.clone(),
                generation,
                step,
                sample_ids: ids.to_vec(),
                logits: ids
                    .iter()
                    .flat_map(|&id| (0..CLASSES).map(move |class| logit(id, class)))
                    .collect(),
                skipped: Vec::new(),
            })
            .collect();
        requests.extend(requests.first().cloned());
        let sent = self
            .client
            .submit_scores(tokio_stream::iter(requests))
            .await;
        self.unless_released(sent).await?;
        self.seen.scored.extend(sample_ids);
        Ok(())
    }

    async fn snapshot(&mut self, step: u64) -> Result<(), End> {
        if self.seen.rank != 0 {
            return Ok(());
        }
        let run_id = self.session.inbox.lock().unwrap().run_id.clone();
        let request = PutCheckpointRequest {
            run_id,
            generation: self.generation,
            step,
            ..Default::default()
        };
        let mut requests: Vec<_> = checkpoint_files(step)
            .into_iter()
            .map(|(file, data)| PutCheckpointRequest {
                file: file.to_owned(),
                sha256: Sha256::digest(&data).to_vec(),
                data,
                end_of_file: true,
                ..request.clone()
            })
            .collect();
        requests.push(PutCheckpointRequest {
            commit: true,
            ..request
        });
        let answer = self
            .client
            .put_checkpoint(tokio_stream::iter(requests))
            .await;
        let answer = self.unless_released(answer).await?;
        assert_eq!(answer.into_inner().problem, "");
        Ok(())
    }

    /// A call that fails because the run has ended is no news: the release is.
    async fn unless_released<T>(&self, answer: Result<T, tonic::Status>) -> Result<T, End> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(status) => {
                let generation = self.generation;
                self.session.wait(generation, |_| None::<()>).await?;
                panic!("refused without a release: {status}")
            }
        }
    }

    async fn stop(&mut self) -> Result<(), End> {
        self.snapshot(self.step).await?;
        self.leave(Reason::Stopped).await
    }

    async fn leave(&mut self, reason: Reason) -> Result<(), End> {
        let (generation, step) = (self.generation, self.step);
        self.say(Up::Leaving(Leaving {
            generation,
            step,
            reason: reason.into(),
        }));
        self.session.wait(generation, |_| None::<()>).await
    }
}

/// Files that a checkpoint of `step` could consist of.
pub(crate) fn checkpoint_files(step: u64) -> [(&'static str, Vec<u8>); 3] {
    let tensors = |value: f32| {
        let header = br#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.extend(value.to_le_bytes());
        bytes.extend((-value).to_le_bytes());
        bytes
    };
    let state = format!(
        r#"{{"format":1,"run_id":"test-run","step":{step},"epoch":0,"step_in_epoch":0,"seed":7,"generation":1,"rng":{{"scheme":"none"}},"samples_in_epoch":0}}"#
    );
    [
        ("model.safetensors", tensors(step as f32)),
        ("optimizer.safetensors", tensors(0.5)),
        ("state.json", state.into_bytes()),
    ]
}

fn file(session: &Session, message: Down) {
    {
        let mut inbox = session.inbox.lock().unwrap();
        match message {
            Down::Welcome(welcome) => inbox.run_id = welcome.run_id,
            Down::Refused(refused) => inbox.over = Some((refused.exit_code, refused.reason)),
            Down::Generation(generation) => {
                inbox.items.clear();
                inbox.generation = Some(generation);
            }
            Down::Plan(plan) => inbox
                .items
                .extend(plan.items.into_iter().filter_map(|item| item.item)),
            Down::Stop(_) => inbox.stop = true,
            Down::Snapshot(_) => inbox.snapshot = true,
            Down::Stacks(_) => {}
            Down::Regroup(regroup) => {
                inbox.regroup = Some((regroup.generation, regroup.at_boundary));
            }
            Down::Release(release) => {
                inbox
                    .over
                    .get_or_insert((release.exit_code, release.reason));
            }
        }
    }
    session.changed.notify_waiters();
}

/// All of some workers' fates, in the order given.
pub(crate) async fn fates(
    workers: Vec<impl Future<Output = Result<Seen, tokio::task::JoinError>>>,
) -> Vec<Seen> {
    let mut seen = Vec::new();
    for worker in workers {
        let fate = tokio::time::timeout(super::PATIENCE, worker).await;
        seen.push(fate.expect("every worker must be let go").unwrap());
    }
    seen
}
