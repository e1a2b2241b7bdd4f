//! Whole runs from the command line: the binary as people start it, with workers that compute nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, where both are fine"
)]

mod dry_run;
mod evaluate;
mod place;
mod seeds;
mod silent;
mod start;
#[path = "../support/mod.rs"]
mod support;

use support::collective::Collective;
use support::worker::{Misbehaviour, spawn};

/// Not a test of its own, but what the runs here start as their worker.
#[tokio::test]
async fn worker_process() {
    let Ok(arguments) = std::env::var("HGAT_FAKE_WORKER") else {
        return;
    };
    let value_of = |name: &str| {
        let mut words = arguments.split(' ').skip_while(|word| *word != name);
        words.nth(1).unwrap().to_owned()
    };
    let (address, id) = (value_of("--coordinator"), value_of("--worker-id"));
    let await_stop_at = std::env::var("HGAT_FAKE_AWAIT_STOP_AT")
        .ok()
        .map(|step| step.parse().unwrap());
    let misbehaviour = Misbehaviour {
        await_stop_at,
        ..Misbehaviour::default()
    };
    let seen = spawn(&address, &id, &Collective::alone(), misbehaviour)
        .await
        .unwrap();
    std::process::exit(seen.exit_code.unwrap().try_into().unwrap());
}
