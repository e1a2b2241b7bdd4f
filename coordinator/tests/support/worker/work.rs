//! The work: the plan's items one after the other, with the messages, sums and checkpoints of a real worker.

mod calls;

use proto::v1::fault::Class;
use proto::v1::leaving::Reason;
use proto::v1::plan_item::Item;
use proto::v1::session_request::Message as Up;
use proto::v1::store_service_client::StoreServiceClient;
use proto::v1::worker_service_client::WorkerServiceClient;
use proto::v1::{
    Fault, Generation, GetRequest, Heartbeat, Leaving, Progress, Ready, SetRequest, Split, Standby,
    StepPlan, StoreScope,
};
use tonic::transport::Channel;

use super::super::collective::{Broken, Collective};
use super::session::{End, Session, Voice};
use super::{Misbehaviour, Seen};

pub(super) struct Worker {
    client: WorkerServiceClient<Channel>,
    store: StoreServiceClient<Channel>,
    voice: Voice,
    session: Session,
    collective: Collective,
    misbehaviour: Misbehaviour,
    generation: u64,
    world_size: u32,
    step: u64,
    /// Of the step in flight, the micro-batches that it would have the gradients of.
    done: Vec<u32>,
    pub(super) seen: Seen,
}

impl Worker {
    pub(super) async fn join(
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
        let (session, voice) = Session::open(&mut client, id).await;
        Self {
            client,
            store: StoreServiceClient::new(channel),
            voice,
            session,
            collective,
            misbehaviour,
            generation: 0,
            world_size: 0,
            step: 0,
            done: Vec::new(),
            seen: Seen::default(),
        }
    }

    /// Works until released or dead.
    pub(super) async fn work(&mut self) -> End {
        for split in [Split::Train, Split::Val] {
            if let Err(end) = self.fetch_index(split).await {
                return end;
            }
        }
        let mut holds = None;
        loop {
            let generation = self.generation;
            self.voice.say(Up::Standby(Standby {
                generation,
                step: holds,
                micro_batches: std::mem::take(&mut self.done),
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
                    // A worker that is told to regroup in a step has done the first.
                    let first = plan.micro_batches.first();
                    self.done = first.map(|batch| batch.index).into_iter().collect();
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
        self.voice.lose();
        self.collective.tear(self.generation);
        Err(End::Died)
    }

    /// Forms the process group: every rank publishes an address and waits for the others'.
    async fn set_up(&mut self, generation: &Generation) -> Result<(), End> {
        self.generation = generation.number;
        self.world_size = generation.world_size;
        self.step = generation.begins_at_step;
        self.seen.rank = generation.rank;
        let run_id = self.session.now(|inbox| inbox.run_id.clone());
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
        self.voice.say(Up::Heartbeat(Heartbeat {
            generation: self.generation,
            ..Heartbeat::default()
        }));
        self.voice.say(Up::Ready(Ready {
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
        self.voice.say(Up::Fault(Fault {
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
        let stop = self.session.now(|inbox| inbox.stop);
        Ok(self.reduce(name, u32::from(stop)).await? > 0)
    }

    async fn train(&mut self, plan: StepPlan) -> Result<(), End> {
        assert_eq!(plan.step, self.step, "steps come in order");
        let stop = self.agree(&format!("step {}", plan.step)).await?;
        let snapshot = self
            .session
            .now(|inbox| std::mem::take(&mut inbox.snapshot));
        let snapshot = self
            .reduce(&format!("snapshot {}", plan.step), u32::from(snapshot))
            .await?
            > 0;
        let boundary = self.session.now(|inbox| inbox.regroup) == Some((self.generation, true));
        let boundary = self
            .reduce(&format!("boundary {}", plan.step), u32::from(boundary))
            .await?
            > 0;
        self.step += 1;
        self.done.clear();
        let off = if self.misbehaviour.differ_at == Some(plan.step) {
            0.5
        } else {
            0.0
        };
        self.voice.say(Up::Progress(Progress {
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

    async fn stop(&mut self) -> Result<(), End> {
        self.snapshot(self.step).await?;
        self.leave(Reason::Stopped).await
    }

    async fn leave(&mut self, reason: Reason) -> Result<(), End> {
        let (generation, step) = (self.generation, self.step);
        self.voice.say(Up::Leaving(Leaving {
            generation,
            step,
            reason: reason.into(),
        }));
        self.session.wait(generation, |_| None::<()>).await
    }
}
