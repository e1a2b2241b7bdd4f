//! Where workers' threads are: the question goes to all of them, the answers to whoever asked.

use std::collections::BTreeMap;

use domain::membership::WorkerId;
use proto::v1::{Stacks, TakeStacks, ThreadStack, WorkerStatus, session_response};
use tokio::sync::{mpsc, oneshot};

use super::Driver;

/// Who asks.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Is told at once who was asked.
    pub(crate) told: oneshot::Sender<Of>,
    /// Gets every worker's answer, by the worker's name. Dropping the other end ends the question.
    pub(crate) answers: mpsc::UnboundedSender<(String, Vec<ThreadStack>)>,
}

/// Who was asked.
#[derive(Debug)]
pub(crate) struct Of {
    /// Workers whose stream is open.
    pub(crate) workers: Vec<WorkerStatus>,
    /// Whether they run on this machine.
    pub(crate) local: bool,
}

/// The questions that are open, by number.
#[derive(Debug, Default)]
pub(super) struct Pending {
    last: u64,
    open: BTreeMap<u64, mpsc::UnboundedSender<(String, Vec<ThreadStack>)>>,
}

impl Driver {
    pub(super) fn ask_for_stacks(&mut self, asked: Asked) {
        let pending = &mut self.stacks;
        pending.open.retain(|_, answers| !answers.is_closed());
        pending.last += 1;
        let request = pending.last;
        pending.open.insert(request, asked.answers);
        let connected = |guest: &super::Guest| guest.connection.is_some();
        let guests = self.guests.iter().filter(|(_, guest)| connected(guest));
        let workers: Vec<WorkerId> = guests.map(|(worker, _)| worker.clone()).collect();
        let status = self.parts.observer.status().borrow().clone();
        let of = Of {
            workers: status
                .workers
                .into_iter()
                .filter(|known| {
                    workers
                        .iter()
                        .any(|worker| worker.as_str() == known.worker_id)
                })
                .collect(),
            local: self.state().roster().is_local(),
        };
        // Whoever asked may have gone already.
        let _ = asked.told.send(of);
        for worker in workers {
            let question = TakeStacks { request };
            self.send(&worker, session_response::Message::Stacks(question));
        }
    }

    pub(super) fn on_stacks(&mut self, worker: &WorkerId, stacks: Stacks) {
        if let Some(answers) = self.stacks.open.get(&stacks.request) {
            let _ = answers.send((worker.to_string(), stacks.threads));
        }
    }
}
