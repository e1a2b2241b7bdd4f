//! Owns the run's state: takes events in, asks the domain what they mean, carries the effects out, shows the result.
//!
//! One task, so that everything happens in one order. It decides nothing: a rule about who may do what belongs in
//! `domain::run`.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::ledger::Ledger;
use domain::membership::WorkerId;
use domain::run::{Ending, Event, Millis, Phase, State};
use proto::v1::Status as RunStatus;
use tokio::sync::{mpsc, oneshot, watch};

use crate::checkpoint::{Checkpoints, Entry};
use crate::evaluation::Evaluations;
use crate::evaluation::scores_folder::ScoresFolder;
use crate::grpc::rendezvous::Rendezvous;
use crate::history::History;
use crate::launch::local::LocalWorkers;
use crate::observer::{Observer, RunEvent};
use crate::run::Shutdown;
use crate::status::{self, Introduced, Shown};
use crate::store::Store;

mod clock;
mod effects;
mod evaluated;
mod feeder;
mod figures;
mod mailbox;
mod messages;
mod recorder;
mod skipped;
mod stacks;

use clock::Clock;
use feeder::Feeder;
use figures::Figures;
pub(crate) use mailbox::{Connection, Mail, Mailbox, Message, mailbox};
#[cfg(test)]
pub(crate) use recorder::smallest_config;
pub(crate) use recorder::{Recorder, digest, unix_millis};
pub(crate) use stacks::{Asked as StacksAsked, Of as StacksOf};

/// Messages handled before the status is shown again, so that a flood does not hide it.
const BATCH: usize = 256;
/// The pause between two statuses, in times of what making one took: with thousands of workers that is as much as hundreds
/// of messages cost, and with a few it is next to nothing.
const SHOW_PAUSE: u32 = 20;
/// How often ages and remaining times in the status are renewed while nothing happens.
const REFRESH: Duration = Duration::from_secs(1);
/// Warnings that the status repeats; the events have them all.
const WARNINGS: usize = 20;

/// A worker that was welcomed.
#[derive(Debug)]
struct Guest {
    /// `None` once the session is over; what the worker said of itself stays to be seen.
    connection: Option<Connection>,
    introduced: Introduced,
}

/// What the driver is made of.
pub(crate) struct Parts {
    pub(crate) state: State,
    pub(crate) run_id: String,
    pub(crate) run_dir: PathBuf,
    pub(crate) welcome: proto::v1::Welcome,
    pub(crate) ledger: Ledger,
    pub(crate) store: Store,
    pub(crate) history: Arc<History>,
    pub(crate) evaluations: Evaluations,
    pub(crate) scores: Arc<ScoresFolder>,
    pub(crate) checkpoints: Checkpoints,
    /// Those that are in place.
    pub(crate) kept: Vec<Entry>,
    /// For what is done beside and comes back.
    pub(crate) mail: Mail,
    pub(crate) rendezvous: Arc<Rendezvous>,
    pub(crate) live: watch::Sender<Option<u64>>,
    pub(crate) launcher: Option<LocalWorkers>,
    pub(crate) recorder: Recorder,
    pub(crate) observer: Observer,
}

/// See the module's description.
pub(crate) struct Driver {
    /// Always there, but for the moment in which the domain works on it.
    state: Option<State>,
    /// When what is being handled came in. What waits in the mailbox came in after it: a worker whose heartbeat waits there
    /// has been heard from, however long the driver takes to get to it.
    clock: Clock,
    parts: Rest,
    guests: BTreeMap<WorkerId, Guest>,
    /// The connection whose Join is being decided on.
    joining: Option<Guest>,
    /// The report whose step is being decided on.
    progress: Option<Box<proto::v1::Progress>>,
    feeder: Option<Feeder>,
    figures: Figures,
    shown: Shown,
    /// Checkpoints that wait for their steps to be reported.
    settling: Vec<(u64, oneshot::Sender<Result<(), String>>)>,
    /// Who waits for workers' stacks.
    stacks: stacks::Pending,
    /// Whether the ledger has changed since it was last handed to the store.
    ledger_changed: bool,
    /// Events that effects have caused, to be handled before anything from outside.
    caused: VecDeque<Event>,
    first_step: Option<Instant>,
    last_step: Option<Instant>,
    /// The step whose state is evaluated, and when it was committed.
    evaluating: Option<(u64, Instant)>,
    reason: String,
    ended: Option<Ending>,
}

/// What is left of [`Parts`] once the state is taken out.
struct Rest {
    welcome: proto::v1::Welcome,
    ledger: Ledger,
    store: Store,
    history: Arc<History>,
    evaluations: Evaluations,
    scores: Arc<ScoresFolder>,
    checkpoints: Checkpoints,
    mail: Mail,
    rendezvous: Arc<Rendezvous>,
    live: watch::Sender<Option<u64>>,
    launcher: Option<LocalWorkers>,
    recorder: Recorder,
    observer: Observer,
}

/// What a run left behind in its driver.
pub(crate) struct Ended {
    pub(crate) ending: Ending,
    pub(crate) status: RunStatus,
    pub(crate) images: u64,
    /// Fraction of its steps' time spent waiting for data.
    pub(crate) data_wait: Option<f64>,
    pub(crate) training: Duration,
    pub(crate) store: Store,
    pub(crate) launcher: Option<LocalWorkers>,
}

impl Driver {
    /// A driver of a run that has not begun.
    pub(crate) fn new(parts: Parts) -> Self {
        let (last_map, best) = parts.history.maps();
        let path_of = |pointed_at: fn(&Entry) -> bool| {
            let entry = parts.kept.iter().find(|entry| pointed_at(entry));
            entry.map_or_else(String::new, |entry| entry.path.display().to_string())
        };
        let shown = Shown {
            last_checkpoint: path_of(|entry| entry.last),
            best_checkpoint: path_of(|entry| entry.best),
            run_id: parts.run_id,
            run_dir: parts.run_dir.display().to_string(),
            last_map,
            best,
            ..Shown::default()
        };
        let mut driver = Self {
            figures: Figures::new(parts.state.config().workers),
            state: Some(parts.state),
            clock: Clock::new(Instant::now()),
            parts: Rest {
                welcome: parts.welcome,
                ledger: parts.ledger,
                store: parts.store,
                history: parts.history,
                evaluations: parts.evaluations,
                scores: parts.scores,
                checkpoints: parts.checkpoints,
                mail: parts.mail,
                rendezvous: parts.rendezvous,
                live: parts.live,
                launcher: parts.launcher,
                recorder: parts.recorder,
                observer: parts.observer,
            },
            guests: BTreeMap::new(),
            joining: None,
            progress: None,
            feeder: None,
            shown,
            settling: Vec::new(),
            stacks: stacks::Pending::default(),
            ledger_changed: false,
            caused: VecDeque::new(),
            first_step: None,
            last_step: None,
            evaluating: None,
            reason: String::new(),
            ended: None,
        };
        // Whoever asks first already gets a status.
        driver.show();
        driver
    }

    /// Drives the run from its beginning to its end.
    pub(crate) async fn run(
        mut self,
        mut mailbox: Mailbox,
        mut shutdown: mpsc::Receiver<Shutdown>,
    ) -> Ended {
        let mut refresh = tokio::time::interval(REFRESH);
        let mut listening = true;
        let mut show_again = Instant::now();
        let mut changed = true;
        self.happen(Event::Started).await;
        loop {
            let now = Instant::now();
            self.clock.look(now);
            if mailbox.is_empty() {
                self.clock.reach(now, now);
            }
            if let Some(ending) = self.ended.take() {
                self.show();
                return self.close(ending);
            }
            if changed && show_again <= Instant::now() {
                let began = Instant::now();
                self.show();
                changed = false;
                show_again = Instant::now() + began.elapsed() * SHOW_PAUSE;
            }
            let wake = self.wake();
            tokio::select! {
                Some((came, message)) = mailbox.recv() => {
                    self.clock.reach(came, Instant::now());
                    self.take(message).await;
                    for _ in 1..BATCH {
                        let Ok((came, message)) = mailbox.try_recv() else { break };
                        self.clock.reach(came, Instant::now());
                        self.take(message).await;
                    }
                    changed = true;
                }
                request = shutdown.recv(), if listening => match request {
                    Some(request) => {
                        self.clock.look(Instant::now());
                        self.happen(request.into_event()).await;
                        changed = true;
                    }
                    None => listening = false,
                },
                // What waits in the mailbox came in before the deadline was over.
                () = tokio::time::sleep_until(wake.into()), if mailbox.is_empty() => {
                    let now = Instant::now();
                    self.clock.reach(now, now);
                    self.happen(Event::Tick).await;
                    changed = true;
                }
                () = tokio::time::sleep_until(show_again.into()), if changed => {}
                _ = refresh.tick() => {
                    self.keep_ledger();
                    let problem = self.parts.recorder.flush();
                    self.warn_if(problem);
                    if let Some(launcher) = &mut self.parts.launcher {
                        launcher.catch_up();
                    }
                    changed = true;
                }
            }
        }
    }

    fn state(&self) -> &State {
        // It is taken out and put back within `decide` alone, which does not wait.
        self.state
            .as_ref()
            .expect("the state is only taken while the domain works on it")
    }

    fn now(&self) -> Millis {
        self.clock.millis()
    }

    /// When the next deadline is over; far away if none runs.
    fn wake(&self) -> Instant {
        match self.state().next_deadline() {
            Some((_, at)) => self.clock.instant(at),
            None => Instant::now() + Duration::from_secs(3600),
        }
    }

    /// Puts an event, and those that its effects cause, through the domain.
    async fn happen(&mut self, event: Event) {
        self.caused.push_back(event);
        while let Some(event) = self.caused.pop_front() {
            let now = self.now();
            let Some(state) = self.state.take() else {
                return;
            };
            let (state, effects, reason) = domain::run::step(state, &event, now);
            self.state = Some(state);
            let problem = self.parts.recorder.event(&event, now, &effects, &reason);
            self.note_reason(reason.to_string());
            for effect in effects {
                self.carry_out(effect).await;
            }
            self.settle();
            let live = self.state().live_generation();
            self.parts
                .live
                .send_if_modified(|known| std::mem::replace(known, live) != live);
            self.warn_if(problem);
        }
    }

    fn note_reason(&mut self, reason: String) {
        if self.reason != reason {
            tracing::info!(%reason, "the run");
            self.parts.observer.tell(RunEvent::Reason(reason.clone()));
            self.reason = reason;
        }
    }

    fn warn(&mut self, text: String) {
        tracing::info!(%text, "warning");
        if self.shown.warnings.len() >= WARNINGS {
            self.shown.warnings.remove(0);
        }
        self.shown.warnings.push(status::cut(&text));
        self.parts.observer.tell(RunEvent::Warning(text));
    }

    fn warn_if(&mut self, problem: Option<String>) {
        if let Some(problem) = problem {
            self.warn(problem);
        }
    }

    /// Hands the ledger to the store if it has changed. Not with every step: it is written whole.
    fn keep_ledger(&mut self) {
        if std::mem::take(&mut self.ledger_changed) {
            self.parts.store.ledger(&self.parts.ledger);
        }
    }

    /// Puts the newest status in place.
    fn show(&mut self) {
        self.shown.loss = self.figures.loss();
        self.shown.images_per_second = self.figures.images_per_second();
        self.shown.data_wait_fraction = self.figures.data_wait();
        let introduced = |worker: &WorkerId| self.guests.get(worker).map(|guest| &guest.introduced);
        let status = status::view(self.state(), &self.shown, introduced, self.now());
        self.parts.observer.show(status);
    }

    fn close(mut self, ending: Ending) -> Ended {
        self.keep_ledger();
        let problem = self.parts.recorder.flush();
        self.warn_if(problem);
        debug_assert!(matches!(self.state().phase(), Phase::Over(_)));
        self.parts.observer.tell(RunEvent::Ended {
            exit_code: ending.exit_code,
            reason: ending.reason.clone(),
        });
        let status = self.parts.observer.status().borrow().clone();
        let training = match (self.first_step, self.last_step) {
            (Some(first), Some(last)) => last - first,
            _ => Duration::ZERO,
        };
        Ended {
            ending,
            status,
            images: self.figures.images(),
            data_wait: self.figures.data_wait_of_run(),
            training,
            store: self.parts.store,
            launcher: self.parts.launcher,
        }
    }
}
