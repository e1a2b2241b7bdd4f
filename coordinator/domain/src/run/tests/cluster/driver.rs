//! What a driver does with the effects of the run, and what becomes of a process that it ends.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

impl Cluster {
    /// What a driver does.
    pub(super) fn carry_out(&mut self) {
        while let Some(effect) = self.sim.effects.get(self.seen).cloned() {
            self.seen += 1;
            match &effect {
                Effect::Launch { worker, .. } => {
                    let process = Process::default();
                    assert!(
                        self.processes.insert(worker.clone(), process).is_none(),
                        "{worker} was started beside itself"
                    );
                }
                Effect::Kill { worker } | Effect::Terminate { worker } => self.kill(worker),
                // The process sees its stream end, and ends.
                Effect::Close { worker } if self.is_connected(worker) => self.kill(worker),
                Effect::Release { worker, .. } => self.hear(worker, &effect),
                Effect::Regroup { workers, .. } => {
                    workers.iter().for_each(|worker| self.hear(worker, &effect));
                }
                Effect::BeginGeneration(Beginning {
                    number,
                    members,
                    begins_at_step,
                    source,
                    opening,
                    assignment,
                    ..
                }) => {
                    let names = members.iter().map(ToString::to_string).collect();
                    self.ledger
                        .begin_generation(*number, *begins_at_step, names, assignment.clone())
                        .unwrap();
                    let world = World {
                        members: members.clone(),
                        assignment: assignment.clone(),
                        begins_at: *begins_at_step,
                        opening: *opening,
                        source: source.clone(),
                        arrived: BTreeMap::new(),
                        entered: BTreeMap::new(),
                        asked: BTreeMap::new(),
                        draining: BTreeMap::new(),
                        unscored: self.unscored(*begins_at_step),
                        scored: BTreeMap::new(),
                        gone: BTreeSet::new(),
                    };
                    self.worlds.insert(*number, world);
                    self.evaluated.retain(|step| step <= begins_at_step);
                    self.scores.retain(|step, _| step <= begins_at_step);
                    self.durable = self.ledger.clone();
                    members.iter().for_each(|worker| self.hear(worker, &effect));
                }
                Effect::Commit {
                    generation, step, ..
                } => {
                    self.ledger.commit_through(*generation, *step).unwrap();
                }
                _ => {}
            }
        }
    }

    fn hear(&mut self, worker: &WorkerId, effect: &Effect) {
        if let Some(process) = self.processes.get_mut(worker)
            && process.connected
        {
            process.heard.push_back(effect.clone());
        }
    }

    pub(super) fn is_connected(&self, worker: &WorkerId) -> bool {
        let process = self.processes.get(worker);
        process.is_some_and(|process| process.connected)
    }

    pub(super) fn kill(&mut self, worker: &WorkerId) {
        self.end(worker, ProcessEnd::Signal(9));
    }

    pub(super) fn end(&mut self, worker: &WorkerId, end: ProcessEnd) {
        if let Some(process) = self.processes.remove(worker) {
            let corpse = Corpse {
                stream: process.connected,
                exit: true,
                end: if process.adopted {
                    ProcessEnd::Unseen
                } else {
                    end
                },
            };
            self.corpses.insert(worker.clone(), corpse);
            self.leave(worker, process.generation);
        }
    }

    /// Its connections close: whoever still waits for it in this generation fails.
    pub(super) fn leave(&mut self, worker: &WorkerId, generation: u64) {
        if let Some(world) = self.worlds.get_mut(&generation) {
            world.gone.insert(worker.clone());
        }
    }
}
