//! One worker's life over generations: it stands by, is sent into a generation, works until that ends, and stands by
//! again with what it holds. A peer's death costs it no micro-batch that it has done, as far as that is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::weights;
use nccl_rs::{GlooOptions, NcclOptions, ProcessGroup};
use proto::v1::{self, fault::Class, generation::State, leaving::Reason, session_request::Message};
use tch::Device;

use crate::again::execute_again;
use crate::error::{WorkerError, exit};
use crate::session::{Link, RemoteStore};
use crate::snapshot::About;
use crate::train::feed::Feed;
use crate::train::held::Held;
use crate::train::online::Online;
use crate::train::replica::{Parts, Replica};
use crate::train::restore::{restore, restore_average};
use crate::train::transfer::Source;
use crate::train::{self, Outcome};

/// What a worker brings into every generation.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) link: Arc<Link>,
    /// The coordinator's address, for the way to which this machine has an address of its own.
    pub(crate) coordinator: String,
    pub(crate) device: Device,
    pub(crate) train: v1::TrainSpec,
    pub(crate) about: Arc<About>,
    pub(crate) held: Held,
    pub(crate) feed: Feed,
    pub(crate) online: Online,
    /// In words, what the weights begin with where no peer holds others.
    pub(crate) initial: String,
}

impl Member {
    /// Takes part until the coordinator lets this worker go.
    ///
    /// # Errors
    /// [`WorkerError`] when this worker cannot go on.
    pub(crate) fn take_part(&mut self) -> Result<(), WorkerError> {
        let mut last = 0;
        self.stand_by(last);
        loop {
            let generation = self.link.inbox.generation(self.held.steps.is_some())?;
            last = generation.number;
            self.feed.begin(generation.forward_parts);
            match self.attend(&generation) {
                Ok(()) | Err(WorkerError::Regroup(_)) => {}
                Err(error) if self.link.inbox.ended().is_some() => return Err(error),
                // A call that failed because the generation is over is no news, and so is the abort of its group.
                Err(error) if self.link.inbox.is_over() && error.is_of_generation() => {}
                // Without memory it can go on where less is asked of it; whether that is so the coordinator says.
                Err(error) if error.is_of_memory() => self.without_memory(last, &error),
                // Most likely a peer died, and others may not know yet.
                Err(error) if error.is_of_peers() => {
                    self.report(last, Class::Collective, &error.to_string());
                }
                // The coordinator is lost, and its successor will end this generation.
                Err(error @ WorkerError::Link(_)) if self.link.is_lost_soon() => {
                    tracing::warn!("{error}; waiting for the coordinator");
                }
                Err(error) => return Err(error),
            }
            // At a boundary this was said while the process group still stood.
            if !self.link.inbox.is_announced() {
                self.stand_by(last);
            }
        }
    }

    /// Says where this worker stands, or, if it was told to end and holds nothing that others need, that it goes.
    fn stand_by(&self, generation: u64) {
        self.link.reach("standing-by");
        let step = self.held.steps;
        let micro_batches = self.held.micro_batches();
        if generation != 0 && step.is_none() && self.link.inbox.requests.drain() {
            leave(&self.link, generation, 0, Reason::Signalled);
        } else {
            stand_by(&self.link, generation, step, micro_batches);
        }
    }

    /// Gives back what it can, and asks less of its memory by itself as long as that computes the same.
    fn without_memory(&mut self, generation: u64, error: &WorkerError) {
        let together = self.feed.one_by_one();
        self.feed.begin(1);
        self.held.forget_step();
        nccl_rs::release_unused_memory();
        if together <= 1 {
            return self.report(generation, Class::Memory, &error.to_string());
        }
        let text = format!(
            "no memory for {together} micro-batches side by side ({error}); from here on this worker does them one by one, \
             which computes the same: train.micro_batches_per_pass = 1 begins so"
        );
        self.report(generation, Class::MemoryOfPass, &text);
    }

    /// Tells the coordinator why this worker cannot do its step.
    fn report(&self, generation: u64, class: Class, message: &str) {
        tracing::warn!("{message}");
        let (_, step) = self.link.position();
        self.link.send(Message::Fault(v1::Fault {
            generation,
            step,
            class: class.into(),
            message: message.to_owned(),
        }));
    }

    /// Works in a generation until it ends.
    fn attend(&mut self, generation: &v1::Generation) -> Result<(), WorkerError> {
        let (link, step) = (Arc::clone(&self.link), generation.begins_at_step);
        link.now(generation.number, step, v1::Activity::Setup);
        link.reach("announced");
        let group = self.form_group(generation)?;
        link.reach("group-formed");
        let _watch = Watch::start(&link, &group, generation.number);
        let (source, initial) = self.source(generation)?;
        if !matches!(generation.state, Some(State::FromPeers(_))) || generation.forward_parts > 1 {
            self.held.forget_step();
        }
        let parts = Parts {
            group,
            held: &mut self.held,
            link: Arc::clone(&link),
            generation: generation.number,
            step,
            source,
            about: Arc::clone(&self.about),
        };
        let mut replica = Replica::new(parts, &self.train)?;
        link.reach("state-in-place");
        link.send(Message::Ready(v1::Ready {
            generation: generation.number,
            initial_state: initial,
            parameters: replica.parameters(),
        }));
        self.online.begin(step);
        self.feed.holds(step, replica.work().done());
        let outcome = train::run(&mut replica, &mut self.feed, &mut self.online, &self.train);
        let outcome = outcome.inspect_err(|_| {
            // Parts of micro-batches are nothing that another generation could go on with.
            if generation.forward_parts <= 1 {
                replica.keep();
            } else {
                replica.work().forget();
            }
        })?;
        let step = replica.step();
        let reason = match outcome {
            Outcome::Finished => Reason::Finished,
            Outcome::Stopped => Reason::Stopped,
            Outcome::Drained if link.inbox.requests.drain() => Reason::Signalled,
            // One that was told to end when all had agreed on something else goes in the next generation.
            Outcome::Boundary | Outcome::Drained => {
                // The group must outlive the slowest peer's last collective: the next generation is announced only when
                // all have said that they are here.
                stand_by(&link, generation.number, Some(step), Vec::new());
                return Ok(link.inbox.announcement()?);
            }
        };
        link.reach("leaving");
        leave(&link, generation.number, step, reason);
        // Here too the group outlives the slowest peer: the coordinator knows when all have left.
        let all_stop = reason == Reason::Stopped;
        Err(link.inbox.release(all_stop).into())
    }

    fn form_group(&self, generation: &v1::Generation) -> Result<Arc<ProcessGroup>, WorkerError> {
        let link = &self.link;
        let store = Arc::new(RemoteStore::new(link, generation.number));
        let (rank, world_size) = (generation.rank as usize, generation.world_size as usize);
        let timeout = Duration::from_millis(generation.collective_timeout_millis.max(1000));
        let _entered = link.entering(format!("rendezvous of generation {}", generation.number));
        let compress_gradients = self.train.compress_gradients;
        let group = match self.device {
            Device::Cuda(device) => {
                let options = NcclOptions {
                    timeout,
                    device,
                    compress_gradients,
                };
                ProcessGroup::nccl(store, rank, world_size, options)
            }
            _ => ProcessGroup::gloo(
                store,
                rank,
                world_size,
                GlooOptions {
                    timeout,
                    bind: crate::session::local_ip(&self.coordinator),
                    shared_memory: self.train.shared_memory,
                    compress_gradients,
                },
            ),
        };
        group
            .map(Arc::new)
            .map_err(|source| WorkerError::Collective {
                step: generation.begins_at_step,
                source,
            })
    }

    /// Who holds the state that a generation begins with, and in words where it comes from if that is no peer.
    /// What no peer holds is rank 0's, so that every other rank has what that one has.
    fn source(&mut self, generation: &v1::Generation) -> Result<(Source, String), WorkerError> {
        let source = |holders, made_alike| Source {
            holders,
            made_alike,
        };
        let first = BTreeSet::from([0]);
        Ok(match &generation.state {
            Some(State::FromPeers(holders)) => {
                let ranks = holders
                    .ranks(generation.world_size)
                    .map(|rank| rank as usize);
                (source(ranks.collect(), false), String::new())
            }
            Some(State::FromCheckpoint(from)) => {
                if generation.rank == 0 {
                    self.fetch(*from)?;
                }
                (source(first, false), format!("checkpoint of step {from}"))
            }
            _ => (source(first, true), self.initial.clone()),
        })
    }

    fn fetch(&mut self, step: u64) -> Result<(), WorkerError> {
        let files = self.link.checkpoint(step)?;
        let tensors = |name: &str| -> Result<BTreeMap<_, _>, WorkerError> {
            let bytes = files.get(name).ok_or_else(|| WorkerError::Checkpoint {
                step,
                reason: format!("it has no {name}"),
            })?;
            Ok(weights::from_safetensors(bytes, name)?.0)
        };
        restore(
            &mut self.held.model,
            &self.held.optimizer,
            &tensors("model.safetensors")?,
            &tensors("optimizer.safetensors")?,
            step,
        )?;
        if let Some(average) = &self.held.average {
            let weights = tensors("ema.safetensors")?;
            restore_average(&mut self.held.model, average, &weights, step)?;
        }
        Ok(())
    }
}

/// Says that this worker is in no process group, or needs its own no more, which state it holds, and what it has done of
/// the next step.
fn stand_by(link: &Link, generation: u64, step: Option<u64>, micro_batches: Vec<u32>) {
    link.now(generation, step.unwrap_or(0), v1::Activity::Waiting);
    link.send(Message::Standby(v1::Standby {
        generation,
        step,
        micro_batches,
    }));
}

/// Says that this worker has done its part, or was told to end.
fn leave(link: &Link, generation: u64, step: u64, reason: Reason) {
    link.now(generation, step, v1::Activity::Leaving);
    link.send(Message::Leaving(v1::Leaving {
        generation,
        step,
        reason: reason.into(),
    }));
}

/// How long the process may take to end, or to execute itself again, before it is made to.
const AT_EXIT: Duration = Duration::from_secs(3);

/// The training thread is stuck: the process ends with it where the session has ended, and else begins again.
fn end_or_begin_again(link: &Link, why: &str) {
    let ended = link.inbox.ended();
    if ended.is_none() {
        execute_again(link, why);
    }
    tracing::error!("{why}, ending the process");
    let code = ended.map_or(exit::RETRY, |ended| ended.exit_code);
    std::process::exit(i32::from(code));
}

/// Frees a training thread that sits in a collective of a generation that is over, or when the session ends: nothing
/// waits for a rank that is gone, and no process outlives its run.
#[derive(Debug)]
struct Watch(Arc<AtomicBool>);

impl Watch {
    fn start(link: &Arc<Link>, group: &Arc<ProcessGroup>, generation: u64) -> Self {
        let left = Arc::new(AtomicBool::new(false));
        let (link, group, watched) = (Arc::clone(link), Arc::clone(group), Arc::clone(&left));
        std::thread::spawn(move || {
            let Some(reason) = link.inbox.until_over(generation) else {
                return;
            };
            if watched.load(Ordering::Acquire) {
                return;
            }
            // In a thread of its own: an abort that hangs, as NCCL's has, must not keep this one from what comes next.
            let aborting = std::thread::Builder::new().spawn(move || group.abort());
            if let Err(problem) = aborting {
                tracing::warn!("the group cannot be left: no thread for it ({problem})");
            }
            let patience = link.pulse().leave_within();
            std::thread::sleep(patience);
            if !watched.load(Ordering::Acquire) {
                let why = format!(
                    "{reason}; the training thread did not leave generation {generation} within {patience:?}"
                );
                // What libraries do at an end may hang as well.
                let ending = std::thread::Builder::new();
                let _ = ending.spawn(move || end_or_begin_again(&link, &why));
                std::thread::sleep(AT_EXIT);
                std::process::abort();
            }
        });
        Self(left)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
