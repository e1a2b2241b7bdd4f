//! What Gloo is to real workers: a sum over all ranks of a generation that fails for everyone once one of them is gone.

use std::collections::{BTreeMap, BTreeSet};
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
    /// Each member is a process of its own and has nobody to add to.
    alone: bool,
    broken: BTreeSet<u64>,
    sums: BTreeMap<(u64, String), (u32, u32)>,
}

/// A peer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

impl Collective {
    /// Of a process that runs ahead of its peers.
    pub(crate) fn alone() -> Self {
        let collective = Self::default();
        collective.0.state.lock().unwrap().alone = true;
        collective
    }

    /// Waits for all ranks of a generation and answers with the sum of what they gave.
    pub(crate) async fn all_reduce(
        &self,
        (generation, world_size): (u64, u32),
        name: &str,
        value: u32,
    ) -> Result<u32, Broken> {
        let key = (generation, name.to_owned());
        {
            let mut state = self.0.state.lock().unwrap();
            let entry = state.sums.entry(key.clone()).or_default();
            entry.0 += 1;
            entry.1 += value;
        }
        self.0.changed.notify_waiters();
        loop {
            let changed = self.0.changed.notified();
            {
                let state = self.0.state.lock().unwrap();
                let (arrived, sum) = state.sums[&key];
                if arrived == world_size || state.alone {
                    return Ok(sum);
                }
                if state.broken.contains(&generation) {
                    return Err(Broken);
                }
            }
            changed.await;
        }
    }

    /// What the death of a rank does.
    pub(crate) fn tear(&self, generation: u64) {
        self.0.state.lock().unwrap().broken.insert(generation);
        self.0.changed.notify_waiters();
    }
}
