use super::*;
use crate::membership::Process;

mod adoption;
mod again;
mod budgets;
mod cluster;
mod degraded;
mod draining;
mod evaluation;
mod hang;
mod kept;
mod properties;
mod recovery;
mod scenarios;
mod thousands;

pub(super) const VAL: u32 = 4;

/// Two epochs of two steps.
pub(super) fn config(workers: u32, local: bool) -> Config {
    Config {
        workers,
        min_workers: 1,
        world: World::Fixed,
        budgets: Budgets {
            crash: 2,
            hang: 2,
            preemption: 2,
            memory: 0,
        },
        balance: false,
        halve_when_out_of_memory: false,
        local,
        shape: RunShape {
            seed: 1,
            samples: 8,
            val_samples: VAL,
            further_rows: 0,
            early_stopping: None,
            global_batch: 4,
            micro_batch: 2,
            epochs: 2,
            evaluate_every_epochs: 1,
            snapshot_every_steps: None,
            snapshot_every_epochs: Some(1),
        },
        begins_at_step: 0,
        from_checkpoint: false,
        evaluate_first: false,
        last_generation: 6,
        adopted: None,
        left_waiting: false,
        losses: Vec::new(),
        forward_parts: 0,
        maps: Default::default(),
        stop_after: None,
        timeouts: Timeouts::from_fault_timeout(Millis(5000)),
    }
}

/// The same, going on with whoever is left.
pub(super) fn elastic(workers: u32) -> Config {
    Config {
        world: World::Elastic,
        ..config(workers, true)
    }
}

/// A run under a simulated clock, with everything that was to be done.
pub(super) struct Sim {
    pub(super) state: Option<State>,
    pub(super) now: Millis,
    pub(super) effects: Vec<Effect>,
    pub(super) reason: String,
}

impl Sim {
    pub(super) fn new(config: Config) -> Self {
        let state = State::new(config).unwrap();
        let mut sim = Self {
            state: Some(state),
            now: Millis(0),
            effects: Vec::new(),
            reason: String::new(),
        };
        sim.happen(Event::Started);
        sim
    }

    /// A local run whose workers have joined, are ready, and train.
    pub(super) fn training(workers: u32) -> Self {
        Self::training_as(config(workers, true))
    }

    /// All have joined, and none is ready.
    pub(super) fn forming_as(config: Config) -> Self {
        let workers = config.workers;
        let mut sim = Self::new(config);
        for n in 0..workers {
            sim.join(n);
        }
        sim
    }

    /// A training run with this config.
    pub(super) fn training_as(config: Config) -> Self {
        let workers = config.workers;
        let mut sim = Self::forming_as(config);
        for n in 0..workers {
            sim.ready(n);
        }
        sim
    }

    pub(super) fn state(&self) -> &State {
        self.state.as_ref().unwrap()
    }

    pub(super) fn happen(&mut self, event: Event) -> Vec<Effect> {
        let (state, effects, reason) = step(self.state.take().unwrap(), &event, self.now);
        self.state = Some(state);
        self.effects.extend(effects.clone());
        self.reason = reason.to_string();
        effects
    }

    /// How many failures were charged to the budget of this class.
    pub(super) fn losses(&self, class: LossClass) -> usize {
        let loss = Effect::Loss { class };
        let charged = self.effects.iter().filter(|effect| **effect == loss);
        charged.count()
    }

    /// Lets time pass to the next deadline.
    pub(super) fn reach_next_deadline(&mut self) -> Option<Deadline> {
        let (deadline, at) = self
            .state()
            .next_deadline()
            .map(|(deadline, at)| (deadline.clone(), at))?;
        self.now = self.now.max(at);
        self.happen(Event::Tick);
        Some(deadline)
    }

    /// Lets deadlines pass until one of them ends the run.
    pub(super) fn wait_for_the_end(&mut self) {
        while !matches!(self.state().phase(), Phase::Ending { .. } | Phase::Over(_)) {
            assert!(
                self.reach_next_deadline().is_some(),
                "nothing is waited for: {}",
                self.reason
            );
        }
    }

    pub(super) fn pass(&mut self, millis: u64) -> Vec<Effect> {
        self.now = self.now.after(Millis(millis));
        self.happen(Event::Tick)
    }

    /// A worker joins and, if it is let in, has set up.
    pub(super) fn join(&mut self, n: u32) -> Vec<Effect> {
        let (host, device) = ("here".to_owned(), "cpu".to_owned());
        let mut effects = self.happen(Event::Joined {
            worker: WorkerId::local(n),
            host,
            pid: n,
            device,
            generation: 0,
        });
        if effects
            .iter()
            .any(|effect| matches!(effect, Effect::Welcome { .. }))
        {
            effects.extend(self.happen(Event::Standby {
                worker: WorkerId::local(n),
                generation: 0,
                step: None,
                micro_batches: Vec::new(),
            }));
        }
        effects
    }

    /// A member leaves its generation, holding the state after `step` steps.
    pub(super) fn standby(&mut self, n: u32, step: u64) -> Vec<Effect> {
        self.standby_with(n, step, &[])
    }

    /// Says where worker `n` stands, and what it has done of the step after that.
    pub(super) fn standby_with(&mut self, n: u32, step: u64, micro_batches: &[u32]) -> Vec<Effect> {
        let generation = self.state().generation();
        self.happen(Event::Standby {
            worker: WorkerId::local(n),
            generation,
            step: Some(step),
            micro_batches: micro_batches.to_vec(),
        })
    }

    pub(super) fn ready(&mut self, n: u32) -> Vec<Effect> {
        let generation = self.state().generation();
        self.happen(Event::Ready {
            worker: WorkerId::local(n),
            generation,
        })
    }

    pub(super) fn beat(&mut self, n: u32, collective: &str, in_collective: bool) -> Vec<Effect> {
        self.happen(Event::Heartbeat {
            worker: WorkerId::local(n),
            collective: collective.to_owned(),
            in_collective,
            draining: false,
        })
    }

    /// A worker says that its process was told to end.
    pub(super) fn told_to_end(&mut self, n: u32) -> Vec<Effect> {
        self.happen(Event::Heartbeat {
            worker: WorkerId::local(n),
            collective: String::new(),
            in_collective: false,
            draining: true,
        })
    }

    pub(super) fn progress(&mut self, n: u32, step: u64) -> Vec<Effect> {
        self.progress_of(n, report(step))
    }

    pub(super) fn progress_of(&mut self, n: u32, report: StepReport) -> Vec<Effect> {
        self.happen(Event::Progress {
            worker: WorkerId::local(n),
            generation: self.state().generation(),
            report,
        })
    }

    pub(super) fn all_do(&mut self, workers: u32, step: u64) {
        for n in 0..workers {
            self.progress(n, step);
        }
    }

    pub(super) fn fault(&mut self, n: u32, class: FaultClass, message: &str) -> Vec<Effect> {
        let message = message.to_owned();
        self.happen(Event::Fault {
            worker: WorkerId::local(n),
            generation: self.state().generation(),
            step: 1,
            class,
            message,
        })
    }

    pub(super) fn leave(&mut self, n: u32, step: u64, reason: LeaveReason) -> Vec<Effect> {
        self.happen(Event::Leaving {
            worker: WorkerId::local(n),
            generation: self.state().generation(),
            step,
            reason,
        })
    }

    /// A checkpoint is in place.
    pub(super) fn checkpointed(&mut self, step: u64) -> Vec<Effect> {
        self.happen(Event::CheckpointEnded {
            step,
            problem: None,
        })
    }

    pub(super) fn stream_lost(&mut self, n: u32) -> Vec<Effect> {
        self.happen(Event::StreamLost {
            worker: WorkerId::local(n),
            detail: "reset".to_owned(),
        })
    }

    pub(super) fn exited(&mut self, n: u32, end: ProcessEnd) -> Vec<Effect> {
        self.happen(Event::Exited {
            worker: WorkerId::local(n),
            end,
            log: vec!["last line".to_owned()],
        })
    }

    /// Everyone follows the release.
    pub(super) fn all_go(&mut self, workers: u32) {
        for n in 0..workers {
            self.stream_lost(n);
            self.exited(n, ProcessEnd::Code(0));
        }
    }

    pub(super) fn ending(&self) -> &Ending {
        match self.state().phase() {
            Phase::Ending { ending, .. } | Phase::Over(ending) => ending,
            other => panic!("not ending but {other:?}: {}", self.reason),
        }
    }

    /// How the run ends, once that is decided.
    pub(super) fn decided(&self) -> Option<Ending> {
        match self.state().phase() {
            Phase::Ending { ending, .. } | Phase::Over(ending) => Some(ending.clone()),
            _ => None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state().phase(), Phase::Over(_))
    }

    pub(super) fn warnings(&self) -> Vec<&str> {
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Warn { text } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }
}

pub(super) fn report(step: u64) -> StepReport {
    StepReport {
        step,
        loss_bits: 0,
        samples_in_step: 4,
        samples_digest: 0,
        state_hash: None,
        pace: 0,
        passed_over: false,
    }
}

/// Everyone that a released worker's process could still be.
pub(super) fn processes(state: &State) -> usize {
    state
        .roster()
        .iter()
        .filter(|(_, member)| member.process == Process::Here)
        .count()
}

/// The generation that begins: number, first step, where its state is from, what it does first.
fn begun(effects: &[Effect]) -> Option<(u64, u64, Source, Opening)> {
    effects.iter().find_map(|effect| match effect {
        Effect::BeginGeneration(Beginning {
            number,
            begins_at_step,
            source,
            opening,
            ..
        }) => Some((*number, *begins_at_step, source.clone(), *opening)),
        _ => None,
    })
}

/// Who must leave at once.
fn told_to_regroup(effects: &[Effect]) -> Vec<&str> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Regroup {
                workers,
                at_boundary: false,
                ..
            } => Some(workers.iter().map(WorkerId::as_str)),
            _ => None,
        })
        .flatten()
        .collect()
}

/// Who is started.
fn launched(effects: &[Effect]) -> Vec<&str> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Launch { worker, .. } => Some(worker.as_str()),
            _ => None,
        })
        .collect()
}
