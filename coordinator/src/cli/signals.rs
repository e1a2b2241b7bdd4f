//! Ctrl-C and SIGTERM: to the run that is being served, and to whoever would begin another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::{Failure, LOST};
use crate::run::Shutdown;

/// Ctrl-C and SIGTERM, as they come.
pub(super) fn pass_on_signals(requests: &mpsc::Sender<Shutdown>) -> Result<(), Failure> {
    for (kind, request) in [
        (SignalKind::interrupt(), Shutdown::Interrupt),
        (SignalKind::terminate(), Shutdown::Terminate),
    ] {
        let mut signals = signal(kind)
            .map_err(|error| Failure::new(LOST, format!("cannot take signals: {error}")))?;
        let requests = requests.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                // A run that has ended takes no more requests.
                if requests.send(request.clone()).await.is_err() {
                    break;
                }
            }
        });
    }
    Ok(())
}

/// Whether Ctrl-C or SIGTERM has come. A run stops by itself; this keeps the next one from beginning, also if the signal
/// comes between two runs.
pub(super) fn watch_signals() -> Result<Arc<AtomicBool>, Failure> {
    let told = Arc::new(AtomicBool::new(false));
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut signals = signal(kind)
            .map_err(|error| Failure::new(LOST, format!("cannot take signals: {error}")))?;
        let told = Arc::clone(&told);
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                told.store(true, Ordering::Relaxed);
            }
        });
    }
    Ok(told)
}
