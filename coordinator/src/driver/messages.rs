//! What others tell the driver, as events of the domain; and what of it only people and the history need.

use std::time::Instant;

use domain::membership::WorkerId;
use domain::run::{Event, FaultClass, LeaveReason, StepReport};
use proto::v1::fault::Class;
use proto::v1::leaving::Reason;
use proto::v1::{Fault, Leaving, Progress, Ready, Standby, session_request};

use super::{Driver, Guest, Message};
use crate::checkpoint::Committed;
use crate::observer::{RunEvent, StepTime};
use crate::reach;
use crate::status::{self, Introduced};
use crate::store::Digest;

impl Driver {
    pub(super) async fn take(&mut self, message: Message) {
        match message {
            Message::Event(event) => {
                let mut ended = None;
                if let Event::Exited { worker, end, .. } = &event {
                    let (worker_id, how) = (worker.to_string(), end.to_string());
                    self.parts.observer.tell(RunEvent::Left { worker_id, how });
                    ended = Some(worker.clone());
                }
                self.happen(event).await;
                // Only now: by then it is in its budget.
                if let (Some(worker), Some(launcher)) = (ended, &mut self.parts.launcher) {
                    launcher.ended(&worker);
                }
            }
            Message::Joining { join, connection } => {
                let worker = WorkerId::new(join.worker_id.clone());
                let event = Event::Joined {
                    worker,
                    host: join.host.clone(),
                    pid: join.pid,
                    device: join.device.clone(),
                    generation: join.generation,
                };
                let introduced = Introduced {
                    join: *join,
                    heartbeat: None,
                };
                self.joining = Some(Guest {
                    connection: Some(connection),
                    introduced,
                });
                self.happen(event).await;
                self.joining = None;
            }
            Message::Said {
                worker,
                session,
                what,
            } => {
                if self.is_current(&worker, session) {
                    self.hear(worker, *what).await;
                }
            }
            Message::Gone {
                worker,
                session,
                detail,
            } => {
                if self.is_current(&worker, session) {
                    self.session_ended(worker, detail).await;
                }
            }
            Message::Dying { worker, pid } => {
                let guest = self.guests.get(&worker);
                let its = guest.filter(|guest| guest.introduced.join.pid == pid);
                if its.is_some_and(|guest| guest.connection.is_some()) {
                    let detail = format!("process {pid} ended without a word");
                    self.session_ended(worker, detail).await;
                }
            }
            Message::Scored {
                step,
                scored,
                samples,
                began,
                skipped,
                scores,
            } => {
                self.parts.store.scores(*scores);
                reach("scored");
                self.on_scored(step, scored, samples, began, skipped).await;
            }
            Message::Flush(done) => self.parts.store.flush_to(done),
            Message::Evaluated { step, outcome } => self.on_evaluated(step, outcome).await,
            Message::Best(path) => self.shown.best_checkpoint = path.display().to_string(),
            Message::Stacks(asked) => self.ask_for_stacks(asked),
            Message::Settle { step, done } => {
                self.settling.push((step, done));
                self.settle();
            }
            Message::Checkpoint { step, outcome } => self.on_checkpoint(step, outcome).await,
        }
    }

    /// The end of a worker's session.
    async fn session_ended(&mut self, worker: WorkerId, detail: String) {
        if let Some(guest) = self.guests.get_mut(&worker) {
            guest.connection = None;
        }
        if !self.state().roster().is_local() {
            let (worker_id, how) = (worker.to_string(), detail.clone());
            self.parts.observer.tell(RunEvent::Left { worker_id, how });
        }
        self.happen(Event::StreamLost { worker, detail }).await;
    }

    /// Whether a message is of the worker's present session; others are of one that was closed.
    fn is_current(&self, worker: &WorkerId, session: u64) -> bool {
        let connection = self
            .guests
            .get(worker)
            .and_then(|guest| guest.connection.as_ref());
        connection.is_some_and(|connection| connection.session == session)
    }

    async fn hear(&mut self, worker: WorkerId, what: session_request::Message) {
        match what {
            // The session takes Join only as the first message.
            session_request::Message::Join(_) => {}
            session_request::Message::Heartbeat(heartbeat) => {
                let event = Event::Heartbeat {
                    worker: worker.clone(),
                    collective: status::cut(&heartbeat.collective),
                    in_collective: heartbeat.in_collective,
                    draining: heartbeat.draining,
                };
                if let Some(guest) = self.guests.get_mut(&worker) {
                    guest.introduced.heartbeat = Some(heartbeat);
                }
                self.happen(event).await;
            }
            session_request::Message::Standby(standby) => {
                let Standby {
                    generation,
                    step,
                    mut micro_batches,
                } = standby;
                // No step has more: what is longer is no list of a step's micro-batches, and need not be kept.
                if micro_batches.len() > self.state().config().shape.global_batch as usize {
                    micro_batches.clear();
                }
                self.happen(Event::Standby {
                    worker,
                    generation,
                    step,
                    micro_batches,
                })
                .await;
            }
            session_request::Message::Ready(ready) => self.on_ready(worker, ready).await,
            session_request::Message::Progress(progress) => {
                self.on_progress(worker, progress).await
            }
            session_request::Message::Fault(fault) => {
                let class = class_of(&fault);
                let Fault {
                    generation,
                    step,
                    message,
                    ..
                } = fault;
                self.happen(Event::Fault {
                    worker,
                    generation,
                    step,
                    class,
                    message,
                })
                .await;
            }
            session_request::Message::Stacks(stacks) => self.on_stacks(&worker, stacks),
            session_request::Message::Leaving(leaving) => {
                let Leaving {
                    generation, step, ..
                } = leaving;
                let reason = match leaving.reason() {
                    Reason::Finished => LeaveReason::Finished,
                    Reason::Stopped => LeaveReason::Stopped,
                    Reason::Signalled | Reason::Unspecified => LeaveReason::Signalled,
                };
                self.happen(Event::Leaving {
                    worker,
                    generation,
                    step,
                    reason,
                })
                .await;
            }
        }
    }

    async fn on_ready(&mut self, worker: WorkerId, ready: Ready) {
        let rank = self
            .state()
            .roster()
            .get(&worker)
            .and_then(|member| member.rank);
        if let Some(rank) = rank
            && self.state().live_generation() == Some(ready.generation)
        {
            self.parts.observer.tell(RunEvent::Ready {
                worker_id: worker.to_string(),
                rank,
                initial_state: ready.initial_state,
                parameters: ready.parameters,
            });
        }
        self.happen(Event::Ready {
            worker,
            generation: ready.generation,
        })
        .await;
    }

    async fn on_progress(&mut self, worker: WorkerId, progress: Progress) {
        let generation = progress.generation;
        let hash: String = progress
            .state_hash
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let report = StepReport {
            step: progress.step,
            // All ranks know that it is no number; which one it is not does not matter.
            loss_bits: if progress.passed_over {
                0
            } else {
                progress.loss.to_bits()
            },
            samples_in_step: progress.samples_in_step,
            samples_digest: progress.samples_digest,
            state_hash: (!hash.is_empty()).then_some(hash),
            pace: progress
                .forward_micros
                .saturating_mul(1000)
                .checked_div(progress.samples.into())
                .unwrap_or(0),
            passed_over: progress.passed_over,
        };
        let live = self.state().live_generation() == Some(generation);
        if live {
            self.figures.report(&progress);
            self.parts.observer.step_time(StepTime {
                step: progress.step,
                micros: progress.step_micros,
                data_wait_micros: progress.data_wait_micros,
            });
            self.note_skipped(&progress);
            self.note_digest(&worker, &progress);
        }
        self.progress = Some(Box::new(progress));
        self.happen(Event::Progress {
            worker: worker.clone(),
            generation,
            report,
        })
        .await;
        self.progress = None;
        if live {
            self.feed(&worker);
        }
    }

    /// Keeps what a rank says it trained on, for the ledger's verification.
    fn note_digest(&self, worker: &WorkerId, progress: &Progress) {
        let member = self.state().roster().get(worker);
        if let Some(rank) = member.and_then(|member| member.rank) {
            self.parts.store.digest(Digest {
                step: progress.step,
                rank,
                generation: progress.generation,
                digest: progress.samples_digest,
            });
        }
    }

    async fn on_checkpoint(&mut self, step: u64, outcome: Result<Committed, String>) {
        reach("checkpoint-answered");
        let problem = match outcome {
            Ok(committed) => {
                let Committed {
                    path, bytes, best, ..
                } = committed;
                self.shown.last_checkpoint = path.display().to_string();
                if let Some((best, _)) = best {
                    self.shown.best_checkpoint = best.display().to_string();
                }
                self.parts
                    .observer
                    .tell(RunEvent::CheckpointCommitted { step, path, bytes });
                None
            }
            Err(problem) => {
                let text = problem.clone();
                self.parts.observer.tell(RunEvent::CheckpointProblem {
                    step,
                    problem: text,
                });
                Some(problem)
            }
        };
        self.happen(Event::CheckpointEnded { step, problem }).await;
    }

    /// Flushes the store for those checkpoints that no death can make void any more: every rank holds their state.
    pub(super) fn settle(&mut self) {
        if self.settling.is_empty() {
            return;
        }
        let held = self.state().steps_held_by_all();
        let (due, later) = std::mem::take(&mut self.settling)
            .into_iter()
            .partition(|(step, _)| *step <= held);
        self.settling = later;
        for (_, done) in due {
            self.keep_ledger();
            let flushed = self.parts.store.flush_later();
            tokio::spawn(async move {
                let result = match flushed.await {
                    Ok(result) => result.map_err(|problem| problem.to_string()),
                    Err(_) => Err("the store is closed: the run is over".to_owned()),
                };
                // An error means that the checkpoint's stream broke meanwhile.
                let _ = done.send(result);
            });
        }
    }

    /// Records the step that the report under decision commits.
    pub(super) fn commit(&mut self, generation: u64, step: u64) {
        if let Err(problem) = self.parts.ledger.commit_through(generation, step) {
            self.warn(format!("the ledger refuses step {step}: {problem}"));
        }
        reach("committed");
        let Some(progress) = self.progress.take() else {
            return;
        };
        self.first_step.get_or_insert_with(Instant::now);
        self.last_step = Some(Instant::now());
        self.ledger_changed = true;
        if progress.passed_over {
            // A curve of numbers has no place for what is none; the ledger and the events have.
            return;
        }
        self.figures.commit(&progress);
        let images_per_second = self.figures.images_per_second();
        let point = proto::v1::StepPoint {
            step,
            loss: progress.loss,
            learning_rate_head: progress.learning_rate_head,
            images_per_second,
            learning_rate_trunk: progress.learning_rate_trunk,
            gradient_norm: progress.gradient_norm,
            data_wait_fraction: self.figures.data_wait(),
            samples: progress.samples_in_step,
            unix_millis: super::recorder::unix_millis(),
        };
        self.parts.history.push_step(point);
        self.parts.store.step(point);
        self.parts.observer.tell(RunEvent::Step {
            step,
            epoch: self.state().epoch().saturating_sub(1),
            loss: progress.loss,
            images_per_second,
            data_wait: self.figures.data_wait(),
        });
    }
}

fn class_of(fault: &Fault) -> FaultClass {
    match fault.class() {
        Class::Collective => FaultClass::Collective,
        Class::Data => FaultClass::Data,
        Class::Numeric => FaultClass::Numeric,
        Class::Memory => FaultClass::Memory,
        Class::MemoryOfPass => FaultClass::MemoryOfPass,
        Class::Config => FaultClass::Config,
        Class::Restart => FaultClass::Restart,
        Class::Internal | Class::Unspecified => FaultClass::Internal,
    }
}
