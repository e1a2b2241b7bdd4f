//! Carries out what the domain wants done.

use domain::assignment::Assignment;
use domain::membership::WorkerId;
use domain::run::{Beginning, Effect, Ending, Event, Source};
use domain::run_plan::RunPlan;

use proto::v1::{
    Generation, Holders, Refused, Regroup, Release, SessionResponse, Stop, TakeSnapshot,
};
use proto::v1::{generation, session_response};
use tokio::sync::mpsc::error::TrySendError;

use super::{Driver, Feeder, unix_millis};
use crate::observer::RunEvent;
use crate::reach;
use crate::store::Loss;

impl Driver {
    pub(super) async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Launch { worker, index } => self.launch(worker, index),
            Effect::Welcome { worker } => self.welcome(worker),
            Effect::Refuse {
                reason, exit_code, ..
            } => self.refuse(reason, exit_code),
            Effect::BeginGeneration(beginning) => self.begin_generation(beginning).await,
            Effect::PassOver { generation, step } => {
                if let Err(problem) = self.parts.ledger.pass_over(generation, step) {
                    self.warn(format!("the ledger refuses step {step}: {problem}"));
                }
                self.ledger_changed = true;
            }
            Effect::Regroup {
                workers,
                at_boundary,
                reason,
            } => self.regroup(&workers, at_boundary, &reason),
            Effect::Commit {
                generation, step, ..
            } => self.commit(generation, step),
            Effect::Stop { reason } => {
                let stop = Stop { reason };
                self.send_to_all(&session_response::Message::Stop(stop));
            }
            Effect::TakeSnapshot => {
                self.send_to_all(&session_response::Message::Snapshot(TakeSnapshot {}));
            }
            Effect::Release {
                worker,
                reason,
                exit_code,
            } => {
                let release = Release {
                    reason,
                    exit_code: exit_code.into(),
                };
                self.send(&worker, session_response::Message::Release(release));
            }
            Effect::Close { worker } => self.lose(worker, "closed by the coordinator"),
            Effect::Terminate { worker } => {
                if let Some(launcher) = &self.parts.launcher {
                    launcher.terminate(&worker);
                }
            }
            Effect::Kill { worker } => {
                if let Some(launcher) = &self.parts.launcher {
                    launcher.kill(&worker);
                }
            }
            Effect::Loss { class } => self.parts.store.loss(Loss {
                class,
                unix_millis: unix_millis(),
            }),
            Effect::Warn { text } => self.warn(text),
            Effect::End(ending) => self.end(ending),
        }
    }

    fn launch(&mut self, worker: WorkerId, index: u32) {
        let Some(launcher) = &mut self.parts.launcher else {
            return;
        };
        match launcher.start(&worker, index) {
            Ok(started) => {
                let (pid, device, log) = (started.pid, started.device, started.log);
                let worker_id = worker.to_string();
                self.parts.observer.tell(RunEvent::Launched {
                    worker_id,
                    pid,
                    device,
                    log,
                });
                self.caused.push_back(Event::Launched { worker, pid });
            }
            Err(problem) => {
                let problem = problem.to_string();
                self.caused
                    .push_back(Event::LaunchFailed { worker, problem });
            }
        }
    }

    fn welcome(&mut self, worker: WorkerId) {
        let Some(guest) = self.joining.take() else {
            return;
        };
        let join = guest.introduced.join.clone();
        self.guests.insert(worker.clone(), guest);
        let welcome = proto::v1::Welcome {
            steps_known: self.state().steps_on_record(),
            ..self.parts.welcome.clone()
        };
        self.send(&worker, session_response::Message::Welcome(welcome));
        reach("welcoming");
        let roster = self.state().roster();
        let (joined, wanted) = (roster.joined(), roster.wanted());
        self.parts.observer.tell(RunEvent::Joined {
            worker_id: join.worker_id,
            host: join.host,
            device: join.device,
            device_name: join.device_name,
            joined,
            wanted,
        });
    }

    fn refuse(&mut self, reason: String, exit_code: u8) {
        let Some(guest) = self.joining.take() else {
            return;
        };
        let refused = Refused {
            reason,
            exit_code: exit_code.into(),
        };
        let message = Some(session_response::Message::Refused(refused));
        // Dropping the sender afterwards ends the stream behind the message.
        if let Some(connection) = guest.connection {
            let _ = connection.down.try_send(Ok(SessionResponse { message }));
        }
    }

    async fn begin_generation(&mut self, beginning: Beginning) {
        let Beginning {
            number,
            members,
            begins_at_step,
            source,
            opening,
            assignment,
            forward_parts,
        } = beginning;
        let names: Vec<_> = members.iter().map(ToString::to_string).collect();
        self.parts.store.forward_parts(forward_parts);
        let begun =
            self.record_generation(number, begins_at_step, names.clone(), assignment.clone());
        if let Err(problem) = begun.await {
            self.caused.push_back(Event::Broken { problem });
            return;
        }
        let config = self.state().config().clone();
        let plan = match RunPlan::new(config.shape, config.workers) {
            Ok(plan) => plan,
            Err(problem) => {
                let problem = problem.to_string();
                self.caused.push_back(Event::Broken { problem });
                return;
            }
        };
        // A roster never holds more members than fit a u32.
        let world_size = members.len() as u32;
        let unscored = self.parts.evaluations.unscored(begins_at_step);
        self.feeder = Some(Feeder::new(
            plan,
            (number, assignment),
            begins_at_step,
            opening,
            unscored,
            config.stop_after,
        ));
        self.figures.begin_generation(world_size);
        self.parts.observer.tell(RunEvent::GenerationFormed {
            number,
            members: names,
            begins_at_step,
            wanted: config.workers,
        });
        let state = match &source {
            Source::Seed => generation::State::FromSeed(true),
            Source::Checkpoint => generation::State::FromCheckpoint(begins_at_step),
            Source::Peers(ranks) => generation::State::FromPeers(Holders::of(ranks)),
        };
        for (rank, worker) in (0u32..).zip(&members) {
            let announcement = Generation {
                number,
                rank,
                world_size,
                begins_at_step,
                state: Some(state.clone()),
                collective_timeout_millis: config.timeouts.collective.0,
                forward_parts,
            };
            self.send(worker, session_response::Message::Generation(announcement));
            self.feed(worker);
            reach("announcing");
        }
    }

    /// Makes a generation durable and voids what lies beyond its beginning. Nobody may hear of it before.
    async fn record_generation(
        &mut self,
        number: u64,
        begins_at_step: u64,
        names: Vec<String>,
        assignment: Assignment,
    ) -> Result<(), String> {
        let voided = self
            .parts
            .ledger
            .begin_generation(number, begins_at_step, names, assignment)
            .map_err(|problem| format!("the ledger does not fit this state: {problem}"))?;
        if !voided.is_empty() {
            self.parts.history.void_from(begins_at_step);
            (self.shown.last_map, self.shown.best) = self.parts.history.maps();
        }
        // Scores of what is void are not to come in once it is dropped.
        self.parts.live.send_replace(None);
        self.parts.evaluations.begin_generation(begins_at_step);
        let store = &self.parts.store;
        store.void_from(begins_at_step);
        store
            .begin_generation(number, &self.parts.ledger)
            .await
            .map_err(|problem| problem.to_string())?;
        reach("generation-durable");
        self.parts.rendezvous.begin(number);
        self.parts.live.send_replace(Some(number));
        Ok(())
    }

    /// Tells members that their generation is over.
    fn regroup(&mut self, workers: &[WorkerId], at_boundary: bool, reason: &str) {
        if !at_boundary {
            // Whoever waits there for a peer's address is told at once.
            self.parts.rendezvous.close();
        }
        let regroup = Regroup {
            generation: self.state().generation(),
            at_boundary,
            reason: reason.to_owned(),
        };
        for worker in workers {
            self.send(worker, session_response::Message::Regroup(regroup.clone()));
        }
        reach("regroup-told");
    }

    /// Hands a worker more of its plan if it needs it.
    pub(super) fn feed(&mut self, worker: &WorkerId) {
        let Some(member) = self.state().roster().get(worker) else {
            return;
        };
        let (Some(rank), next_step) = (member.rank, member.next_step) else {
            return;
        };
        let Some(feeder) = &mut self.feeder else {
            return;
        };
        for plan in feeder.top_up(rank, next_step) {
            self.send(worker, session_response::Message::Plan(plan));
        }
    }

    fn send_to_all(&mut self, message: &session_response::Message) {
        let workers: Vec<_> = self.guests.keys().cloned().collect();
        for worker in workers {
            self.send(&worker, message.clone());
        }
    }

    pub(super) fn send(&mut self, worker: &WorkerId, message: session_response::Message) {
        let connection = self
            .guests
            .get(worker)
            .and_then(|guest| guest.connection.as_ref());
        let Some(connection) = connection else { return };
        let message = SessionResponse {
            message: Some(message),
        };
        match connection.down.try_send(Ok(message)) {
            Ok(()) => {}
            // Its stream has ended, which the session reports itself.
            Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.lose(worker.clone(), "it does not read its messages")
            }
        }
    }

    /// Closes a session from this side.
    fn lose(&mut self, worker: WorkerId, detail: &str) {
        let connection = self
            .guests
            .get_mut(&worker)
            .and_then(|guest| guest.connection.take());
        if connection.is_some() {
            self.caused.push_back(Event::StreamLost {
                worker,
                detail: detail.to_owned(),
            });
        }
    }

    fn end(&mut self, ending: Ending) {
        if let Some(culprit) = &ending.culprit
            && !ending.log.is_empty()
        {
            let (worker_id, lines) = (culprit.to_string(), ending.log.clone());
            self.parts
                .observer
                .tell(RunEvent::WorkerLog { worker_id, lines });
        }
        self.guests
            .values_mut()
            .for_each(|guest| guest.connection = None);
        self.ended = Some(ending);
    }
}
