//! One worker: its session from Join to its end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use proto::v1::session_request::Message as Up;
use proto::v1::session_response::Message as Down;
use proto::v1::worker_service_client::WorkerServiceClient;
use proto::v1::{Activity, Heartbeat, Join, Ready, SessionRequest, Standby};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

/// What a worker has heard from its coordinator, and when.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) worker: usize,
    pub(crate) what: What,
    pub(crate) at: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Welcome,
    Regroup,
    Generation,
    /// Its session is over, though nobody has broken it.
    End(String),
}

impl Heard {
    /// An error if it says that the worker was lost.
    pub(crate) fn lost(&self) -> Result<()> {
        match &self.what {
            What::End(how) => bail!("worker {} was lost: {how}", self.worker),
            _ => Ok(()),
        }
    }
}

/// Follows the protocol until `broken` is told or its session is over. All that it holds ends with it, its connection
/// included: to the coordinator that is a death.
pub(crate) async fn work(
    index: usize,
    workers: usize,
    channel: Channel,
    tell: mpsc::UnboundedSender<Heard>,
    broken: oneshot::Receiver<()>,
) {
    let tell = |what| {
        let at = Instant::now();
        // Nobody listens any more when the program ends.
        let _ = tell.send(Heard {
            worker: index,
            what,
            at,
        });
    };
    tokio::select! {
        // A sender that is gone is the program's end.
        _ = broken => {}
        how = attend(index, workers, channel, &tell) => tell(What::End(how)),
    }
}

/// How its session ended.
async fn attend(index: usize, workers: usize, channel: Channel, tell: &impl Fn(What)) -> String {
    let mut client = WorkerServiceClient::new(channel);
    let (up, messages) = mpsc::unbounded_channel();
    let say = |message| {
        let message = Some(message);
        // The stream's other half reports its end.
        let _ = up.send(SessionRequest { message });
    };
    say(Up::Join(join(index)));
    let session = client.session(UnboundedReceiverStream::new(messages)).await;
    let mut down = match session {
        Ok(response) => response.into_inner(),
        Err(status) => return status.to_string(),
    };
    // Told by the welcome; nobody sends heartbeats before.
    let mut beat = tokio::time::interval(Duration::from_secs(3600));
    beat.reset();
    let (mut generation, mut step) = (0, 0);
    loop {
        let message = tokio::select! {
            _ = beat.tick() => {
                say(Up::Heartbeat(heartbeat(generation, step)));
                continue;
            }
            message = down.message() => message,
        };
        let message = match message {
            Ok(Some(message)) => message.message,
            Ok(None) => return "its stream ended".to_owned(),
            Err(status) => return status.to_string(),
        };
        match message {
            Some(Down::Welcome(welcome)) => {
                tell(What::Welcome);
                let interval = Duration::from_millis(welcome.heartbeat_interval_millis.max(1));
                // Spread over the interval, as processes that start by themselves are.
                let first = interval.mul_f64(index as f64 / workers as f64);
                beat = tokio::time::interval_at(tokio::time::Instant::now() + first, interval);
                beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
                say(Up::Standby(Standby {
                    generation: 0,
                    step: None,
                    micro_batches: Vec::new(),
                }));
            }
            Some(Down::Generation(sent)) => {
                tell(What::Generation);
                (generation, step) = (sent.number, sent.begins_at_step);
                say(Up::Ready(Ready {
                    generation,
                    initial_state: String::new(),
                    parameters: 1,
                }));
            }
            Some(Down::Regroup(_)) => {
                tell(What::Regroup);
                say(Up::Standby(Standby {
                    generation,
                    step: Some(step),
                    micro_batches: Vec::new(),
                }));
            }
            Some(Down::Refused(refused)) => return format!("refused: {}", refused.reason),
            Some(Down::Release(release)) => return format!("released: {}", release.reason),
            // Nothing is computed: plans are taken and not followed.
            Some(Down::Plan(_) | Down::Stop(_) | Down::Snapshot(_) | Down::Stacks(_)) | None => {}
        }
    }
}

fn join(index: usize) -> Join {
    Join {
        worker_id: format!("simulated-{index}"),
        host: format!("host-{}", index / 8),
        pid: std::process::id(),
        device: "cpu".to_owned(),
        device_name: "nothing".to_owned(),
        threads: 1,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Join::default()
    }
}

/// As of a worker that waits in an all-reduce.
fn heartbeat(generation: u64, step: u64) -> Heartbeat {
    Heartbeat {
        generation,
        step,
        activity: Activity::Training.into(),
        collective: format!("all-reduce of gradients after {step} steps"),
        in_collective: true,
        resident_bytes: 1 << 30,
        draining: false,
    }
}
