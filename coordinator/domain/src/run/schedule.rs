//! The deadlines that run, by name and by time: the earliest is asked for after every event, and every heartbeat moves one.

use std::collections::{BTreeMap, BTreeSet};

use super::{Deadline, Millis};

/// Each deadline at most once.
#[derive(Debug, Clone, Default)]
pub(super) struct Schedule {
    by_name: BTreeMap<Deadline, Millis>,
    by_time: BTreeSet<(Millis, Deadline)>,
}

impl Schedule {
    /// Sets a deadline, whether or not it runs already.
    pub(super) fn set(&mut self, deadline: Deadline, at: Millis) {
        match self.by_name.get_mut(&deadline) {
            Some(known) if *known == at => {}
            Some(known) => {
                let before = std::mem::replace(known, at);
                // The name goes from the old place to the new one.
                let name = match self.by_time.take(&(before, deadline.clone())) {
                    Some((_, name)) => name,
                    None => deadline,
                };
                self.by_time.insert((at, name));
            }
            None => {
                self.by_time.insert((at, deadline.clone()));
                self.by_name.insert(deadline, at);
            }
        }
    }

    /// Sets a deadline unless it runs already.
    pub(super) fn set_unless_running(&mut self, deadline: Deadline, at: Millis) {
        if !self.by_name.contains_key(&deadline) {
            self.set(deadline, at);
        }
    }

    /// It is no longer waited for.
    pub(super) fn remove(&mut self, deadline: &Deadline) {
        if let Some((name, at)) = self.by_name.remove_entry(deadline) {
            self.by_time.remove(&(at, name));
        }
    }

    /// Whether it runs.
    pub(super) fn runs(&self, deadline: &Deadline) -> bool {
        self.by_name.contains_key(deadline)
    }

    /// Whether a checkpoint is coming in.
    pub(super) fn awaits_checkpoint(&self) -> bool {
        let mut names = self.by_name.keys();
        names.any(|deadline| matches!(deadline, Deadline::Checkpoint(_)))
    }

    /// Keeps those for which `keep` holds.
    pub(super) fn retain(&mut self, keep: impl Fn(&Deadline) -> bool) {
        self.by_name.retain(|deadline, _| keep(deadline));
        self.by_time.retain(|(_, deadline)| keep(deadline));
    }

    /// The earliest, and of several at one time the first by name.
    pub(super) fn next(&self) -> Option<(&Deadline, Millis)> {
        self.by_time.first().map(|(at, deadline)| (deadline, *at))
    }

    /// Those that are no worker's heartbeat, without a look at the thousands that are.
    pub(super) fn but_heartbeats(&self) -> impl Iterator<Item = (&Deadline, Millis)> {
        // Heartbeats are between these two in the order of deadlines.
        let before = self.by_name.range(..=Deadline::Forming);
        let after = self.by_name.range(Deadline::Regroup..);
        before.chain(after).map(|(deadline, at)| (deadline, *at))
    }

    /// All of them.
    pub(super) fn by_name(&self) -> &BTreeMap<Deadline, Millis> {
        &self.by_name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::WorkerId;

    #[test]
    fn a_deadline_that_is_moved_is_found_where_it_is_now_and_nowhere_else() {
        let heartbeat = |n| Deadline::Heartbeat(WorkerId::local(n));
        let mut schedule = Schedule::default();
        schedule.set(heartbeat(0), Millis(5));
        schedule.set(heartbeat(1), Millis(5));
        schedule.set(Deadline::Join, Millis(9));
        assert_eq!(schedule.next(), Some((&heartbeat(0), Millis(5))));
        schedule.set(heartbeat(0), Millis(10));
        schedule.set(heartbeat(1), Millis(11));
        schedule.set_unless_running(Deadline::Join, Millis(1));
        assert_eq!(schedule.next(), Some((&Deadline::Join, Millis(9))));
        schedule.set(Deadline::Kill, Millis(50));
        schedule.remove(&Deadline::Join);
        assert!(!schedule.runs(&Deadline::Join));
        let names: Vec<_> = schedule.but_heartbeats().collect();
        assert_eq!(names, [(&Deadline::Kill, Millis(50))]);
        schedule.remove(&Deadline::Kill);
        schedule.retain(|deadline| *deadline != heartbeat(0));
        assert_eq!(schedule.next(), Some((&heartbeat(1), Millis(11))));
        assert_eq!((schedule.by_name.len(), schedule.by_time.len()), (1, 1));
    }
}
