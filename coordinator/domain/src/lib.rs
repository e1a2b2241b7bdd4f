//! The coordinator's decisions, as pure functions and values: which sample belongs to which step
//! and rank, which steps of which generation count, how good a model is, which checkpoints stay.
//!
//! This crate must not know: clocks, files, sockets, threads, async, random numbers of the
//! operating system, wire types, or how a decision is carried out. What time it is and what
//! happened are arguments; what to do is a return value. The dependency list and this crate's own
//! `clippy.toml` keep it so. Maps are ordered, so that a decision repeats bit for bit.

pub mod assignment;
pub mod average_precision;
pub mod calibration;
pub mod class_weights;
mod columns;
pub mod comparison;
pub mod figures;
pub mod group_means;
pub mod labels;
pub mod ledger;
pub mod membership;
pub mod model_cost;
pub mod multilabel;
pub mod numbers;
pub mod other_definitions;
pub mod permutation;
pub mod plan;
mod radix;
pub mod ranking;
pub mod rehearsal;
pub mod retention;
pub mod run;
pub mod run_plan;
pub mod score_table;
pub mod scores;
pub mod scoring;
pub mod shares;
mod sigmoid;
pub mod thresholds;
pub mod train_gap;
