//! Evaluations: every rank scores a share, with a coordinator or without, and meets the others at the end of it.

use std::collections::BTreeSet;

use super::*;

impl World {
    /// Whether all members have scored their shares.
    pub(super) fn has_scored(&self, step: Option<u64>) -> bool {
        let scored = step.and_then(|step| self.scored.get(&step));
        scored.is_some_and(|scored| scored.len() == self.members.len())
    }

    fn rank_of(&self, worker: &WorkerId) -> usize {
        let mut members = self.members.iter();
        members.position(|member| member == worker).unwrap()
    }
}

impl Cluster {
    /// The rows of an evaluation that lack a score on disk.
    pub(super) fn unscored(&self, step: u64) -> Vec<u32> {
        let none = BTreeSet::new();
        let scored = self.scores.get(&step).unwrap_or(&none);
        (0..VAL).filter(|row| !scored.contains(row)).collect()
    }

    /// What the coordinator does with scores: they are on disk before this is answered, and figures are computed of scores that are
    /// there, by whichever coordinator.
    pub(super) fn take_scores(&mut self, step: u64, rows: &BTreeSet<u32>) {
        if self.evaluated.contains(&step) {
            return;
        }
        let scored = self.scores.entry(step).or_default();
        scored.extend(rows);
        let scored = scored.len() as u32;
        self.say(Event::Scored {
            step,
            scored,
            samples: VAL,
        });
        if scored == VAL {
            self.evaluated.insert(step);
            self.scores.remove(&step);
            self.say(Event::Evaluated {
                step,
                problem: None,
                map_bits: None,
            });
        }
    }

    /// A rank scores its share; without a coordinator it keeps that.
    pub(super) fn scores(&mut self, worker: &WorkerId) {
        let process = self.processes.get_mut(worker).unwrap();
        let Some(step) = process.to_score.take() else {
            return;
        };
        process.meets = Some(step);
        let (boundary, draining, connected) = (
            process.boundary,
            process.draining.is_some(),
            process.connected,
        );
        let world = self.worlds.get_mut(&process.generation).unwrap();
        let all = if step == world.begins_at {
            world.unscored.clone()
        } else {
            (0..VAL).collect()
        };
        let (rank, world_size) = (world.rank_of(worker), world.members.len());
        let share = all.into_iter().skip(rank).step_by(world_size);
        let share: BTreeSet<u32> = share.collect();
        let kept = if connected {
            BTreeSet::new()
        } else {
            share.clone()
        };
        process.kept.entry(step).or_default().extend(&kept);
        let scored = world.scored.entry(step).or_default();
        scored.insert(worker.clone(), kept);
        // Between the all-reduces of this step and the next.
        *world.asked.entry(MEETING + step).or_default() |= boundary;
        *world.draining.entry(MEETING + step).or_default() += u32::from(draining);
        if connected {
            self.take_scores(step, &share);
        }
    }

    /// All ranks have scored: each takes what the two before it keep, and they end here if any of them was asked to.
    pub(super) fn meets(&mut self, worker: &WorkerId) {
        let process = self.processes.get_mut(worker).unwrap();
        let number = process.generation;
        let world = &self.worlds[&number];
        if !world.has_scored(process.meets) {
            return self.fails(worker, number);
        }
        let Some(step) = process.meets.take() else {
            return;
        };
        let (rank, world_size) = (world.rank_of(worker), world.members.len());
        let mut held = BTreeSet::new();
        for before in 1..=COPIES.min(world_size - 1) {
            let of = &world.members[(rank + world_size - before) % world_size];
            held.extend(&world.scored[&step][of]);
        }
        let asked = world.asked[&(MEETING + step)];
        let draining = world.draining[&(MEETING + step)] as usize;
        let all = draining == world_size;
        if process.connected {
            self.take_scores(step, &held);
        } else {
            process.kept.entry(step).or_default().extend(held);
        }
        let way = match draining {
            _ if all => Way::Stopped,
            1.. => Way::Drained,
            0 if asked => Way::Boundary,
            0 => return,
        };
        self.at_a_place(worker, number, false, way != Way::Boundary);
        self.settles(worker, way);
    }
}
