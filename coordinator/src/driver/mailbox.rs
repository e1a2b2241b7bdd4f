//! What others tell the driver, and when each of it came in.

use std::path::PathBuf;
use std::time::Instant;

use domain::membership::WorkerId;
use domain::run::Event;
use proto::v1::{Join, SessionResponse, session_request};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::checkpoint::Committed;
use crate::evaluation::Evaluated;
use crate::store::{Scores, StoreError};

/// Messages that may wait for the driver; senders beyond that wait with them.
const MAILBOX: usize = 4096;

/// The receiving side: messages in the order in which they came, each with the time at which it did.
pub(crate) type Mailbox = mpsc::Receiver<(Instant, Message)>;

/// The sending side.
#[derive(Debug, Clone)]
pub(crate) struct Mail(mpsc::Sender<(Instant, Message)>);

/// The driver is gone: the run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Over;

/// A driver's mailbox.
pub(crate) fn mailbox() -> (Mail, Mailbox) {
    let (sender, receiver) = mpsc::channel(MAILBOX);
    (Mail(sender), receiver)
}

impl Mail {
    /// Tells the driver; waits while too much waits for it already.
    pub(crate) async fn send(&self, message: Message) -> Result<(), Over> {
        let came = Instant::now();
        self.0.send((came, message)).await.map_err(|_| Over)
    }
}

/// What others tell the driver.
#[derive(Debug)]
pub(crate) enum Message {
    /// Something that the domain understands as it is.
    Event(Event),
    /// A worker's first message.
    Joining {
        join: Box<Join>,
        connection: Connection,
    },
    /// A worker's further messages.
    Said {
        worker: WorkerId,
        session: u64,
        what: Box<session_request::Message>,
    },
    /// The end of a session's stream.
    Gone {
        worker: WorkerId,
        session: u64,
        detail: String,
    },
    /// A process that was started here is ending, and not in order: its session will say no more.
    Dying { worker: WorkerId, pid: u32 },
    /// Scores came in.
    Scored {
        step: u64,
        scored: u32,
        samples: u32,
        began: bool,
        skipped: Vec<(u32, String)>,
        scores: Box<Scores>,
    },
    /// To be answered once everything that came before this is on disk, or cannot be.
    Flush(oneshot::Sender<Result<(), StoreError>>),
    /// Someone wants to know where every worker's threads are.
    Stacks(super::StacksAsked),
    /// An evaluation is done, or has no figures. Beside the figures: why its scores could not be kept.
    Evaluated {
        step: u64,
        outcome: Result<Box<(Evaluated, Option<String>)>, String>,
    },
    /// A checkpoint of `step` is about to be committed: `done` once every step before it is on disk. A checkpoint that
    /// is ahead of the ledger could not be gone on from.
    Settle {
        step: u64,
        done: oneshot::Sender<Result<(), String>>,
    },
    /// Figures came to a checkpoint that was in place already: where `best` leads now.
    Best(PathBuf),
    /// A checkpoint is in place, or is not.
    Checkpoint {
        step: u64,
        outcome: Result<Committed, String>,
    },
}

/// The way to a worker.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Tells this session from others of the same worker.
    pub(crate) session: u64,
    /// Messages down; dropping it ends the stream.
    pub(crate) down: mpsc::Sender<Result<SessionResponse, Status>>,
    /// Dropping it ends the session's reading half.
    pub(crate) _reading: oneshot::Sender<()>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_carries_the_time_at_which_it_came_and_not_at_which_it_was_taken() {
        // Given a full mailbox, and one more who waits to put something in
        let (mail, mut mailbox) = mailbox();
        for _ in 0..MAILBOX {
            mail.send(Message::Event(Event::Tick)).await.unwrap();
        }
        let late =
            tokio::spawn(async move { mail.send(Message::Event(Event::SnapshotAsked)).await });
        tokio::task::yield_now().await;

        // When it is emptied at last
        let emptied = Instant::now();
        let mut came = Vec::new();
        while let Some((at, _)) = mailbox.recv().await {
            came.push(at);
        }

        // Then all of it had come before, in order
        assert_eq!(late.await.unwrap(), Ok(()));
        assert_eq!(came.len(), MAILBOX + 1);
        assert!(came.is_sorted());
        assert!(came.iter().all(|at| *at <= emptied));
    }
}
