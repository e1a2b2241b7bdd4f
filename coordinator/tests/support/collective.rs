//! What Gloo is to real workers: a sum over all ranks that fails for everyone once a rank is gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

#[derive(Debug, Clone, Default)]
pub(crate) struct Collective(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    world_size: u32,
    broken: bool,
    sums: BTreeMap<String, (u32, u32)>,
}

/// A peer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

impl Collective {
    pub(crate) fn of(world_size: u32) -> Self {
        let collective = Self::default();
        collective.0.state.lock().unwrap().world_size = world_size;
        collective
    }

    /// Waits for all ranks and answers with the sum of what they gave.
    pub(crate) async fn all_reduce(&self, name: &str, value: u32) -> Result<u32, Broken> {
        {
            let mut state = self.0.state.lock().unwrap();
            let entry = state.sums.entry(name.to_owned()).or_default();
            entry.0 += 1;
            entry.1 += value;
        }
        self.0.changed.notify_waiters();
        loop {
            let changed = self.0.changed.notified();
            {
                let state = self.0.state.lock().unwrap();
                let (arrived, sum) = state.sums[name];
                if arrived == state.world_size {
                    return Ok(sum);
                }
                if state.broken {
                    return Err(Broken);
                }
            }
            changed.await;
        }
    }

    /// What the death of a rank does.
    pub(crate) fn tear(&self) {
        self.0.state.lock().unwrap().broken = true;
        self.0.changed.notify_waiters();
    }
}
