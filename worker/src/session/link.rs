//! The stream itself: joins, listens, beats.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::v1::session_request::Message;
use proto::v1::worker_service_client::WorkerServiceClient;
use proto::v1::{self, SessionRequest};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::inbox::Inbox;

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

/// Who this process is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) run_id: String,
    pub(crate) worker_id: String,
    pub(crate) host: String,
    pub(crate) device: String,
    pub(crate) device_name: String,
    pub(crate) threads: u32,
}

/// What the next heartbeat says. Written by the training thread, read by the stream's.
#[derive(Debug, Default)]
struct Pulse {
    generation: AtomicU64,
    step: AtomicU64,
    activity: AtomicU64,
    collective: Mutex<(String, bool)>,
}

/// A live session with the coordinator.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) runtime: Runtime,
    pub(super) channel: Channel,
    pub(super) run_id: String,
    up: mpsc::UnboundedSender<SessionRequest>,
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
        let endpoint = Endpoint::from_shared(address.to_owned())
            .map_err(|source| LinkError::Address {
                address: address.to_owned(),
                source,
            })?
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(5));
        let channel = runtime.block_on(connect(&endpoint, address, patience))?;
        let (up, receiver) = mpsc::unbounded_channel();
        let inbox = Arc::new(Inbox::default());
        let pulse = Arc::new(Pulse::default());
        let link = Self {
            runtime,
            channel,
            run_id: identity.run_id.clone(),
            up,
            pulse,
            inbox,
        };
        link.send(Message::Join(v1::Join {
            run_id: identity.run_id.clone(),
            worker_id: identity.worker_id.clone(),
            host: identity.host.clone(),
            pid: std::process::id(),
            device: identity.device.clone(),
            device_name: identity.device_name.clone(),
            threads: identity.threads,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }));
        link.runtime.spawn(listen(
            link.client(),
            UnboundedReceiverStream::new(receiver),
            Arc::clone(&link.inbox),
        ));
        Ok(link)
    }

    /// Starts heartbeats at the interval the coordinator asked for.
    pub(crate) fn beat(&mut self, run_id: &str, every: Duration) {
        self.run_id = run_id.to_owned();
        let (up, pulse) = (self.up.clone(), Arc::clone(&self.pulse));
        self.runtime.spawn(async move {
            let mut ticks = tokio::time::interval(every.max(Duration::from_millis(50)));
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if up
                    .send(request(Message::Heartbeat(pulse.heartbeat())))
                    .is_err()
                {
                    return;
                }
            }
        });
    }

    /// Lets SIGTERM drain this worker: it leaves at the next step boundary, or at once where it is in no generation. A
    /// second one, or one after the coordinator has let it go, ends the process.
    pub(crate) fn drain_on_sigterm(&self) {
        let inbox = Arc::clone(&self.inbox);
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
            }
        });
    }

    /// Queues a message for the coordinator; never blocks. After the stream broke nobody reads it, and the inbox says
    /// why.
    pub(crate) fn send(&self, message: Message) {
        let _ = self.up.send(request(message));
    }

    /// Notes what the process does, for heartbeats.
    pub(crate) fn now(&self, generation: u64, step: u64, activity: v1::Activity) {
        self.pulse.generation.store(generation, Ordering::Relaxed);
        self.pulse.step.store(step, Ordering::Relaxed);
        self.pulse
            .activity
            .store(activity as u64, Ordering::Relaxed);
    }

    /// The generation and step last noted.
    pub(crate) fn position(&self) -> (u64, u64) {
        (
            self.pulse.generation.load(Ordering::Relaxed),
            self.pulse.step.load(Ordering::Relaxed),
        )
    }

    /// Notes that a collective is entered; what it returns notes that it was left.
    pub(crate) fn entering(&self, collective: String) -> Collective<'_> {
        *self
            .pulse
            .collective
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = (collective, true);
        Collective(&self.pulse)
    }

    pub(super) fn client(&self) -> WorkerServiceClient<Channel> {
        WorkerServiceClient::new(self.channel.clone())
            .max_decoding_message_size(2 * proto::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(proto::MAX_MESSAGE_BYTES)
    }

    /// The address of this end, as the coordinator's network sees it: what peers can reach this process at.
    pub(crate) fn local_ip(address: &str) -> std::net::IpAddr {
        let target = address
            .trim_start_matches("http://")
            .trim_start_matches("https://")
            .trim_end_matches('/');
        std::net::TcpStream::connect(target)
            .and_then(|stream| stream.local_addr())
            .map_or(
                std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
                |local| local.ip(),
            )
    }
}

/// A collective under way; dropping it says that it was left.
#[derive(Debug)]
pub(crate) struct Collective<'a>(&'a Pulse);

impl Drop for Collective<'_> {
    fn drop(&mut self) {
        self.0
            .collective
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .1 = false;
    }
}

impl Pulse {
    fn heartbeat(&self) -> v1::Heartbeat {
        let (collective, in_collective) = self
            .collective
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        v1::Heartbeat {
            generation: self.generation.load(Ordering::Relaxed),
            step: self.step.load(Ordering::Relaxed),
            activity: i32::try_from(self.activity.load(Ordering::Relaxed)).unwrap_or_default(),
            collective,
            in_collective,
            resident_bytes: resident_bytes().unwrap_or_default(),
        }
    }
}

fn request(message: Message) -> SessionRequest {
    SessionRequest {
        message: Some(message),
    }
}

/// Memory of this process in bytes, from `/proc/self/statm` (pages of 4 KiB).
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm
        .split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|pages| pages * 4096)
}

async fn connect(
    endpoint: &Endpoint,
    address: &str,
    patience: Duration,
) -> Result<Channel, LinkError> {
    let give_up = tokio::time::Instant::now() + patience;
    let mut pause = Duration::from_millis(20);
    loop {
        match endpoint.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) if tokio::time::Instant::now() + pause >= give_up => {
                let reason = std::error::Error::source(&error)
                    .map_or_else(|| error.to_string(), ToString::to_string);
                return Err(LinkError::Connect {
                    address: address.to_owned(),
                    reason,
                });
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// Files what comes down until the stream ends, then says so.
async fn listen(
    mut client: WorkerServiceClient<Channel>,
    up: UnboundedReceiverStream<SessionRequest>,
    inbox: Arc<Inbox>,
) {
    let lost = |what: String| {
        format!("{what}; the coordinator is gone, so this worker ends (it can be started again)")
    };
    let mut down = match client.session(up).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            return inbox.end(
                lost(format!("the session was not opened: {}", status.message())),
                75,
            );
        }
    };
    loop {
        match down.message().await {
            Ok(Some(v1::SessionResponse {
                message: Some(message),
            })) => inbox.file(message),
            Ok(Some(_)) => {}
            Ok(None) => return inbox.end(lost("the session's stream was closed".to_owned()), 75),
            Err(status) => {
                return inbox.end(
                    lost(format!("the session's stream broke: {}", status.message())),
                    75,
                );
            }
        }
    }
}
