//! The stream itself: joins, listens, beats, and looks for a coordinator that was started again when the one it had is
//! lost. Training goes on meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use proto::v1;
use proto::v1::session_request::Message;
use proto::v1::worker_service_client::WorkerServiceClient;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

use super::find::{LOOKED_FOR_EVERY, connect, find};
use super::identity::Identity;
use super::inbox::Inbox;
use super::kept::KeptScores;
use super::outbox::Outbox;
use super::pulse::{Collective, Pulse};

/// A broken stream is noticed this long after a call failed for the same reason.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);

/// Why the coordinator cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The address is not one.
    #[error(
        "coordinator address {address:?} is not a URL: {source}; give one such as http://127.0.0.1:50051"
    )]
    Address {
        address: String,
        source: tonic::transport::Error,
    },
    /// Nobody answers.
    #[error(
        "cannot reach the coordinator at {address}: {reason}; check that it is running (coordinator status)"
    )]
    Connect { address: String, reason: String },
    /// The runtime of the session could not be started.
    #[error("cannot start the session's runtime: {0}; the machine may be out of threads or memory")]
    Runtime(std::io::Error),
    /// A call was answered with an error.
    #[error("{call} at the coordinator failed: {message}")]
    Call { call: &'static str, message: String },
    /// The coordinator answered with something that cannot be used.
    #[error("{call}: the coordinator's answer cannot be used: {reason}; are both of one version")]
    Answer { call: &'static str, reason: String },
}

/// The way to whichever coordinator serves the run.
#[derive(Debug)]
struct Way {
    channel: RwLock<Channel>,
    outbox: Outbox,
    kept: KeptScores,
    /// Whether the session's stream is open.
    connected: AtomicBool,
    /// How long a lost coordinator is looked for, in milliseconds; its welcome says it anew.
    patience_millis: AtomicU64,
}

/// A session with the coordinator.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) runtime: Runtime,
    pub(super) run_id: String,
    worker_id: String,
    way: Arc<Way>,
    pulse: Arc<Pulse>,
    /// What the coordinator said.
    pub(crate) inbox: Arc<Inbox>,
}

impl Link {
    /// Connects, joins and waits for the Welcome. Retries while the coordinator is not yet listening, for at most
    /// `patience`.
    ///
    /// # Errors
    /// [`LinkError`] when the coordinator cannot be reached; a refusal is found in the inbox.
    pub(crate) fn join(
        address: &str,
        identity: &Identity,
        patience: Duration,
    ) -> Result<Self, LinkError> {
        // One thread for the stream and heartbeats, one so that a slow call cannot hold them up.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("session")
            .enable_all()
            .build()
            .map_err(LinkError::Runtime)?;
        let (address, channel) = runtime.block_on(connect(address, identity, patience))?;
        let inbox = Arc::new(Inbox::default());
        let way = Arc::new(Way {
            channel: RwLock::new(channel),
            outbox: Outbox::default(),
            kept: KeptScores::default(),
            connected: AtomicBool::new(true),
            patience_millis: AtomicU64::new(patience.as_millis().try_into().unwrap_or(u64::MAX)),
        });
        let link = Self {
            runtime,
            run_id: identity.run_id.clone(),
            worker_id: identity.worker_id.clone(),
            way: Arc::clone(&way),
            pulse: Arc::new(Pulse::default()),
            inbox: Arc::clone(&inbox),
        };
        link.runtime
            .spawn(keep(way, inbox, address, identity.clone()));
        Ok(link)
    }

    /// Starts heartbeats at the interval the coordinator asked for.
    /// A lost coordinator is looked for as long as it says.
    pub(crate) fn beat(&mut self, welcome: &v1::Welcome) {
        self.run_id.clone_from(&welcome.run_id);
        let patience = welcome.reconnect_within_millis;
        self.way.patience_millis.store(patience, Ordering::Relaxed);
        let every = Duration::from_millis(welcome.heartbeat_interval_millis);
        let (way, pulse) = (Arc::clone(&self.way), Arc::clone(&self.pulse));
        let inbox = Arc::clone(&self.inbox);
        self.runtime.spawn(async move {
            let mut ticks = tokio::time::interval(every.max(Duration::from_millis(50)));
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let heartbeat = pulse.heartbeat(inbox.requests.drain());
                way.outbox.say(Message::Heartbeat(heartbeat));
            }
        });
    }

    /// Lets SIGTERM drain this worker: it leaves at the next boundary, or at once where it holds no state. A second one, or
    /// one after the coordinator has let it go, ends the process.
    pub(crate) fn drain_on_sigterm(&self) {
        let inbox = Arc::clone(&self.inbox);
        let (way, pulse) = (Arc::clone(&self.way), Arc::clone(&self.pulse));
        self.runtime.spawn(async move {
            use tokio::signal::unix::{SignalKind, signal};
            let Ok(mut signals) = signal(SignalKind::terminate()) else {
                return; // then SIGTERM ends the process at once, as for any other
            };
            while signals.recv().await.is_some() {
                if inbox.ended().is_some() || inbox.requests.drain() {
                    std::process::exit(128 + 15);
                }
                inbox.drain();
                way.outbox.say(Message::Heartbeat(pulse.heartbeat(true)));
            }
        });
    }

    /// Queues a message for the coordinator; never blocks. While there is none, what matters is kept for the next one.
    pub(crate) fn send(&self, message: Message) {
        self.way.outbox.say(message);
    }

    /// Whether the coordinator is lost, as a call that failed suggests: its stream may be noticed to be broken only a
    /// moment later.
    pub(crate) fn is_lost_soon(&self) -> bool {
        let lost = || !self.way.connected.load(Ordering::Acquire);
        for _ in 0..NOTICED_WITHIN.as_millis() / 10 {
            if lost() || self.inbox.is_over() || self.inbox.ended().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        lost()
    }

    /// Waits, where the coordinator is lost, for the next one; says whether there is one to be asked again.
    pub(crate) fn is_found_again(&self) -> bool {
        if !self.is_lost_soon() {
            return false;
        }
        while !self.way.connected.load(Ordering::Acquire) {
            if self.inbox.ended().is_some() {
                return false;
            }
            std::thread::sleep(LOOKED_FOR_EVERY);
        }
        true
    }

    /// Reaches a named point of the protocol, at which a test may let this process die or stop.
    pub(crate) fn reach(&self, point: &str) {
        fault_points::reach(&self.worker_id, point);
    }

    /// Notes what the process does, for heartbeats.
    pub(crate) fn now(&self, generation: u64, step: u64, activity: v1::Activity) {
        self.pulse.now(generation, step, activity);
    }

    /// The generation and step last noted.
    pub(crate) fn position(&self) -> (u64, u64) {
        self.pulse.position()
    }

    /// What the training thread does, for heartbeats and for those who wait for it.
    pub(crate) fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Notes that a collective is entered; what it returns notes that it was left.
    pub(crate) fn entering(&self, collective: String) -> Collective<'_> {
        self.pulse.entering(collective)
    }

    /// Scores that no coordinator has taken yet.
    pub(super) fn kept(&self) -> &KeptScores {
        &self.way.kept
    }

    /// The way for calls beside the session.
    pub(super) fn channel(&self) -> Channel {
        self.way.channel()
    }

    pub(super) fn client(&self) -> WorkerServiceClient<Channel> {
        self.way.client()
    }
}

impl Way {
    /// Says where all threads are, from a thread of its own: the session goes on meanwhile.
    fn answer_stacks(self: &Arc<Self>, request: u64) {
        let way = Arc::clone(self);
        std::thread::spawn(move || {
            let threads = nccl_rs::stacks().into_iter();
            let threads = threads
                .map(|thread| v1::ThreadStack {
                    id: thread.id,
                    name: thread.name,
                    frames: thread.frames,
                    problem: thread.problem.unwrap_or_default(),
                })
                .collect();
            way.outbox
                .say(Message::Stacks(v1::Stacks { request, threads }));
        });
    }

    fn channel(&self) -> Channel {
        let channel = self.channel.read();
        channel.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn client(&self) -> WorkerServiceClient<Channel> {
        WorkerServiceClient::new(self.channel())
            .max_decoding_message_size(2 * proto::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(proto::MAX_MESSAGE_BYTES)
    }
}

/// Keeps a session open with whichever coordinator serves the run, until one ends it or none lets this worker in for too
/// long.
async fn keep(way: Arc<Way>, inbox: Arc<Inbox>, mut address: String, identity: Identity) {
    let mut lost_at = tokio::time::Instant::now();
    loop {
        let (what, welcomed) = attend(&way, &inbox, &identity).await;
        way.outbox.close();
        way.kept.begin();
        way.connected.store(false, Ordering::Release);
        if inbox.ended().is_some() {
            return;
        }
        let patience = Duration::from_millis(way.patience_millis.load(Ordering::Relaxed));
        if welcomed {
            lost_at = tokio::time::Instant::now();
            tracing::warn!("{what}; looking for the coordinator for {patience:?}");
        } else {
            tokio::time::sleep(LOOKED_FOR_EVERY).await;
        }
        let Some((found, channel)) = find(&address, &identity, lost_at + patience).await else {
            let reason = format!(
                "{what}, and no coordinator was found within {patience:?}, so this worker ends (it can be started again)"
            );
            return inbox.end(reason, 75);
        };
        *way.channel.write().unwrap_or_else(PoisonError::into_inner) = channel;
        address = found;
    }
}

/// One stream, from Join to its end; says how it ended, and whether this worker had been let in.
async fn attend(way: &Arc<Way>, inbox: &Inbox, identity: &Identity) -> (String, bool) {
    let mut welcomed = false;
    let (up, messages) = mpsc::unbounded_channel();
    let generation = inbox.present();
    way.outbox.open(up, join(identity, generation));
    let mut down = match way
        .client()
        .session(UnboundedReceiverStream::new(messages))
        .await
    {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            let what = format!("the session was not opened: {}", status.message());
            return (what, welcomed);
        }
    };
    loop {
        match down.message().await {
            Ok(Some(v1::SessionResponse {
                message: Some(message),
            })) => {
                let steps = match &message {
                    v1::session_response::Message::Welcome(welcome) => Some(welcome.steps_known),
                    _ => None,
                };
                if let v1::session_response::Message::Stacks(asked) = &message {
                    way.answer_stacks(asked.request);
                    continue;
                }
                if let v1::session_response::Message::Generation(next) = &message {
                    way.outbox.is_sent_on(next.number); // before the training thread hears of it, and stands elsewhere
                }
                inbox.file(message);
                if let Some(steps) = steps {
                    welcomed = true;
                    way.outbox.is_welcome();
                    // Before it hears where this worker stands, which may be beyond what these are the scores of.
                    if let Err(status) = way.kept.deliver(way.client()).await {
                        let what = format!("kept scores were not taken: {}", status.message());
                        return (what, welcomed);
                    }
                    way.outbox.tell_again(steps);
                    way.connected.store(true, Ordering::Release);
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return ("the session's stream was closed".to_owned(), welcomed),
            Err(status) => {
                let what = format!("the session's stream broke: {}", status.message());
                return (what, welcomed);
            }
        }
    }
}

fn join(identity: &Identity, generation: u64) -> v1::Join {
    v1::Join {
        run_id: identity.run_id.clone(),
        worker_id: identity.worker_id.clone(),
        host: identity.host.clone(),
        pid: std::process::id(),
        device: identity.device.clone(),
        device_name: identity.device_name.clone(),
        threads: identity.threads,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        generation,
    }
}
