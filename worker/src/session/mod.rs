//! The worker's end of the Session stream: what the coordinator says lands in an inbox that the training thread reads;
//! what the training thread reports goes up without waiting.
//!
//! The stream is driven by a small runtime of its own, so neither a long forward pass nor a blocked collective delays
//! a heartbeat.

mod address;
mod bulk;
mod find;
mod identity;
mod inbox;
mod kept;
mod link;
mod outbox;
mod pulse;
mod store;

pub(crate) use address::local_ip;
pub(crate) use bulk::Upload;
pub(crate) use identity::Identity;
pub(crate) use inbox::{Break, Ended, Inbox};
pub(crate) use link::{Link, LinkError};
pub(crate) use pulse::Collective;
pub(crate) use store::RemoteStore;
