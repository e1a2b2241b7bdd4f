//! Processes that an earlier coordinator has started: they are no children of this one, so their end shows in a process
//! descriptor, which also makes sure that a signal never reaches a stranger.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use domain::membership::WorkerId;
use domain::run::{Event, ProcessEnd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::{mpsc, oneshot};

use super::processes::Process;
use crate::driver::{Mail, Message};

/// One process's life from now on; at once over if it is not there. Without one, the worker's last was seen to end.
pub(super) async fn watch(
    process: Option<Process>,
    worker: WorkerId,
    signals: mpsc::UnboundedReceiver<Signal>,
    messages: Mail,
) {
    let end = match process {
        Some(_) => ProcessEnd::Unseen,
        None => ProcessEnd::Known,
    };
    if let Some(process) = process
        && let Err(problem) = until_its_end(process, signals).await
    {
        tracing::warn!(%worker, %problem, "an adopted worker process cannot be watched");
    }
    let event = Event::Exited {
        worker,
        end,
        log: Vec::new(),
    };
    // The driver has ended if this fails: nobody wants to know any more.
    let _ = messages.send(Message::Event(event)).await;
}

async fn until_its_end(
    process: Process,
    mut signals: mpsc::UnboundedReceiver<Signal>,
) -> std::io::Result<()> {
    let Some(pid) = Pid::from_raw(process.pid.cast_signed()) else {
        return Ok(());
    };
    let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(problem) => return Err(problem.into()),
    };
    // Only now is it certain that the descriptor is of the process that was meant.
    if !process.lives() {
        return Ok(());
    }
    let descriptor = Arc::new(descriptor);
    let mut ended = ended(Arc::clone(&descriptor))?;
    loop {
        tokio::select! {
            _ = &mut ended => return Ok(()),
            Some(signal) = signals.recv() => {
                if let Err(problem) = pidfd_send_signal(&descriptor, signal) {
                    tracing::debug!(?signal, %problem, "a signal did not reach an adopted process");
                }
            }
        }
    }
}

/// Resolves when the process has ended. A thread waits for it: it must not keep the runtime from its own end.
fn ended(descriptor: Arc<OwnedFd>) -> std::io::Result<oneshot::Receiver<()>> {
    let (told, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("adopted".to_owned())
        .spawn(move || {
            let mut waiting = [PollFd::new(&descriptor, PollFlags::IN)];
            while poll(&mut waiting, None) == Err(rustix::io::Errno::INTR) {}
            // Nobody may want to know any more.
            let _ = told.send(());
        })?;
    Ok(ended)
}
