//! One worker's session: its first message introduces it, every further one goes to the driver in order, and the end
//! of the stream is the fastest notice of a death.

use std::sync::Arc;

use domain::membership::WorkerId;
use proto::v1::{
    Join, Refused, SessionRequest, SessionResponse, session_request, session_response,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Context;
use crate::driver::{Connection, Message};
use crate::terminal::figures::patience;

/// Messages that may wait for a worker to read them; a worker that lets more pile up is taken for lost.
const DOWN: usize = 1024;

/// Bounds on what comes from outside, in bytes and counts.
const NAME_BYTES: usize = 128;
const TEXT_BYTES: usize = 16 * 1024;
const HASH_BYTES: usize = 64;
const SKIPPED: usize = 65_536;
const THREADS: usize = 4096;
const FRAMES: usize = 256;
const FRAME_BYTES: usize = 4096;

type Down = ReceiverStream<Result<SessionResponse, Status>>;

/// Answers a session at once; its messages are read by a task of their own.
pub(super) fn open(context: Arc<Context>, up: Streaming<SessionRequest>) -> Down {
    let (down, stream) = mpsc::channel(DOWN);
    tokio::spawn(read(context, up, down));
    ReceiverStream::new(stream)
}

async fn read(
    context: Arc<Context>,
    mut up: Streaming<SessionRequest>,
    down: mpsc::Sender<Result<SessionResponse, Status>>,
) {
    let join = match introduction(&context, &mut up).await {
        Ok(join) => join,
        Err(refusal) => {
            // Errors mean that the worker has gone already.
            let _ = down.send(refusal).await;
            return;
        }
    };
    let session = context.next_session();
    let worker = WorkerId::new(join.worker_id.clone());
    let (reading, mut closed) = oneshot::channel();
    let connection = Connection {
        session,
        down: down.clone(),
        _reading: reading,
    };
    let failures = down.downgrade();
    drop(down);
    if context
        .tell(Message::Joining {
            join: Box::new(join),
            connection,
        })
        .await
        .is_err()
    {
        return;
    }
    let detail = loop {
        let message = tokio::select! {
            message = up.message() => message,
            // The driver closed it, and knows.
            _ = &mut closed => return,
        };
        match message {
            Ok(Some(SessionRequest {
                message: Some(what),
            })) => {
                if let Err(problem) = check(&what) {
                    if let Some(down) = failures.upgrade() {
                        let _ = down.try_send(Err(problem.clone()));
                    }
                    break problem.message().to_owned();
                }
                let what = Box::new(what);
                if context
                    .tell(Message::Said {
                        worker: worker.clone(),
                        session,
                        what,
                    })
                    .await
                    .is_err()
                {
                    return;
                }
            }
            // A kind of message that this version does not know.
            Ok(Some(SessionRequest { message: None })) => {}
            Ok(None) => break "its stream ended".to_owned(),
            Err(status) => {
                tracing::debug!(%worker, %status, "a session's stream broke");
                break "its connection broke".to_owned();
            }
        }
    };
    let _ = context
        .tell(Message::Gone {
            worker,
            session,
            detail,
        })
        .await;
}

/// The first message, if it is a Join that this coordinator can serve; or what to answer.
async fn introduction(
    context: &Context,
    up: &mut Streaming<SessionRequest>,
) -> Result<Join, Result<SessionResponse, Status>> {
    let first = tokio::time::timeout(context.join_timeout, up.message()).await;
    let message = match first {
        Ok(Ok(Some(SessionRequest {
            message: Some(message),
        }))) => message,
        Ok(Ok(_)) => return Err(Err(Status::invalid_argument("a session begins with Join"))),
        Ok(Err(status)) => return Err(Err(status)),
        Err(_) => {
            return Err(Err(Status::deadline_exceeded(format!(
                "no Join came within {}",
                patience(context.join_timeout)
            ))));
        }
    };
    check(&message).map_err(Err)?;
    let session_request::Message::Join(join) = message else {
        return Err(Err(Status::invalid_argument("a session begins with Join")));
    };
    match unfit(context, &join) {
        None => Ok(join),
        Some(reason) => {
            let refused = Refused {
                reason,
                exit_code: 64,
            };
            Err(Ok(SessionResponse {
                message: Some(session_response::Message::Refused(refused)),
            }))
        }
    }
}

/// Why a worker cannot be served whatever the state of the run.
fn unfit(context: &Context, join: &Join) -> Option<String> {
    let own = env!("CARGO_PKG_VERSION");
    if join.version != own {
        return Some(format!(
            "worker version {:?} differs from the coordinator's {own:?}: install the same version everywhere",
            join.version
        ));
    }
    if !join.run_id.is_empty() && join.run_id != context.run_id {
        return Some(format!(
            "this coordinator serves run {}, not {}: look up the address of the run you mean in its coordinator.json",
            context.run_id, join.run_id
        ));
    }
    let printable = |c: char| c.is_ascii_graphic();
    if join.worker_id.is_empty() || !join.worker_id.chars().all(printable) {
        return Some(format!(
            "worker id {:?} is not a name: use letters, digits and signs without spaces",
            join.worker_id
        ));
    }
    None
}

/// That no text or list of a message is larger than it has reason to be.
fn check(message: &session_request::Message) -> Result<(), Status> {
    use session_request::Message as M;
    let within = |what: &str, size: usize, limit: usize| {
        if size <= limit {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!(
            "{what} of {size} is over the limit of {limit}"
        )))
    };
    match message {
        M::Join(join) => {
            let names = [
                ("run_id", &join.run_id),
                ("worker_id", &join.worker_id),
                ("device", &join.device),
                ("version", &join.version),
            ];
            for (what, name) in names {
                within(what, name.len(), NAME_BYTES)?;
            }
            within("host", join.host.len(), 2 * NAME_BYTES)?;
            within("device_name", join.device_name.len(), 2 * NAME_BYTES)
        }
        M::Heartbeat(heartbeat) => within("collective", heartbeat.collective.len(), TEXT_BYTES),
        M::Ready(ready) => within("initial_state", ready.initial_state.len(), TEXT_BYTES),
        M::Progress(progress) => {
            within("state_hash", progress.state_hash.len(), HASH_BYTES)?;
            within("skipped", progress.skipped.len(), SKIPPED)?;
            progress
                .skipped
                .iter()
                .try_for_each(|skipped| within("reason", skipped.reason.len(), TEXT_BYTES))
        }
        M::Fault(fault) => within("message", fault.message.len(), TEXT_BYTES),
        M::Stacks(stacks) => {
            within("threads", stacks.threads.len(), THREADS)?;
            stacks.threads.iter().try_for_each(|thread| {
                within("name", thread.name.len(), NAME_BYTES)?;
                within("problem", thread.problem.len(), TEXT_BYTES)?;
                within("frames", thread.frames.len(), FRAMES)?;
                let frames = thread.frames.iter();
                frames
                    .map(String::len)
                    .try_for_each(|bytes| within("frame", bytes, FRAME_BYTES))
            })
        }
        M::Leaving(_) | M::Standby(_) => Ok(()),
    }
}
