//! What the services refuse, hold back and end.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, where both are fine"
)]

mod people;
#[path = "../support/mod.rs"]
mod support;
mod workers;

use std::sync::Arc;

use support::Served;
use support::collective::Collective;
use support::worker::{Misbehaviour, spawn};
use tokio::sync::Notify;

/// A run of two workers that stand before step 2, and what lets the second go on.
async fn paused_run(
    served: &mut Served,
) -> (
    Vec<tokio::task::JoinHandle<support::worker::Seen>>,
    Arc<Notify>,
) {
    let (collective, resume) = (Collective::default(), Arc::new(Notify::new()));
    let paused = Misbehaviour {
        pause_at: Some((2, Arc::clone(&resume))),
        ..Misbehaviour::default()
    };
    let workers = vec![
        spawn(
            &served.address,
            "worker-0",
            &collective,
            Misbehaviour::default(),
        ),
        spawn(&served.address, "worker-1", &collective, paused),
    ];
    served.until("two steps", |status| status.step == 2).await;
    (workers, resume)
}
