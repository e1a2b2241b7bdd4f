//! The coordinator: one process that serves one training run.
//!
//! It hands each worker its share of every step, gathers scores into one exact figure, owns every checkpoint write
//! and says at any time what the run is doing or waiting for. What to do is decided by the crate `domain`; here are
//! the clock, sockets, files and processes that carry it out.
//!
//! ```text
//! cli -> config -> run::serve --- grpc (sessions, scores, checkpoints, store, status) ---\
//!                     |---------- launch (worker processes) ---------- messages ---------- driver -- domain::run::step
//!                     |---------- store (redb), checkpoint, evaluation <-- effects -------/   |
//!                     `---------- observer (events for the terminal, the status view) <-------'
//! ```
//!
//! This crate must not know: tensors or libtorch (it starts in milliseconds and runs anywhere), how a worker computes,
//! or any rule about who may do what when: that is `domain`'s.

mod baseline;
pub mod checkpoint;
pub mod cli;
pub mod compare;
pub mod config;
pub mod descriptors;
mod driver;
pub mod evaluation;
pub mod further;
mod grpc;
pub mod history;
mod launch;
pub mod ledger_record;
pub mod machine;
pub mod observer;
pub mod online;
mod rehearsal;
pub mod report;
pub mod run;
pub mod run_dir;
pub mod scoring;
mod seed_dirs;
mod slots;
mod standing;
pub mod status;
pub mod store;
pub mod summary;
pub mod telemetry;
pub mod terminal;

/// Reaches a named point of the protocol, at which a test may let this process die or stop.
fn reach(point: &str) {
    fault_points::reach("coordinator", point);
}
