//! What a simulated worker does: when it hears something, and when it is its turn to act.

use std::collections::BTreeSet;

use super::*;

impl Cluster {
    pub(super) fn hears(&mut self, worker: &WorkerId) {
        let process = self.processes.get_mut(worker).unwrap();
        let generation = process.generation;
        match process.heard.pop_front().unwrap() {
            Effect::Release { .. } => self.kill(worker),
            Effect::BeginGeneration(Beginning { number, .. }) => {
                process.generation = number;
                process.boundary = false;
                process.place = Place::Forming;
            }
            Effect::Regroup { at_boundary, .. } if at_boundary => process.boundary = true,
            Effect::Regroup { .. } if process.place != Place::Apart => {
                self.stands_by(worker, generation);
            }
            _ => {}
        }
    }

    fn stands_by(&mut self, worker: &WorkerId, generation: u64) {
        self.leave(worker, generation);
        let micro_batches = self.micro_batches_done(worker);
        let process = self.processes.get_mut(worker).unwrap();
        process.place = Place::Apart;
        process.pending = None;
        let step = process.held.as_ref().map(|held| held.len() as u64);
        self.say(Event::Standby {
            worker: worker.clone(),
            generation,
            step,
            micro_batches,
        });
    }

    /// What it has done of the step in flight: everything once it has entered the all-reduce, or else, by chance, some.
    fn micro_batches_done(&self, worker: &WorkerId) -> Vec<u32> {
        let process = &self.processes[worker];
        let (&Place::Working { entered }, Some(held)) = (&process.place, &process.held) else {
            return Vec::new();
        };
        let world = &self.worlds[&process.generation];
        let rank = world.members.iter().position(|member| member == worker);
        let plan = RunPlan::new(self.sim.state().config().shape, 1).unwrap();
        let step = held.len() as u64;
        let Some(shape) = plan.epoch_shape().step(plan.step_in_epoch(step)) else {
            return Vec::new();
        };
        let count = shape.micro_batches.len() as u32;
        let mut mine = world
            .assignment
            .micro_batches(step, count, rank.unwrap() as u32);
        if !entered {
            mine.truncate(process.generation as usize % 2);
        }
        mine
    }

    pub(super) fn acts(&mut self, worker: &WorkerId) {
        let process = self.processes.get_mut(worker).unwrap();
        match process.place {
            Place::Starting => {
                process.joined = true;
                process.place = Place::Apart;
                self.say(Event::Joined {
                    worker: worker.clone(),
                    host: String::new(),
                    pid: 1,
                    device: String::new(),
                    generation: 0,
                });
                self.say(Event::Standby {
                    worker: worker.clone(),
                    generation: 0,
                    step: None,
                    micro_batches: Vec::new(),
                });
            }
            Place::Forming => self.forms(worker),
            Place::Working { entered } => self.works(worker, entered),
            Place::Apart | Place::Left => {}
        }
    }

    fn forms(&mut self, worker: &WorkerId) {
        let process = self.processes.get_mut(worker).unwrap();
        let (number, held) = (process.generation, process.held.clone());
        let world = self.worlds.get_mut(&number).unwrap();
        if !world.arrived.contains_key(worker) {
            world.arrived.insert(worker.clone(), held);
            return;
        }
        if world.arrived.len() < world.members.len() {
            self.fails(worker, number);
            return;
        }
        // Levelling: everyone has what the holders have.
        let begins_at = usize::try_from(world.begins_at).unwrap();
        let state = match &world.source {
            Source::Seed => Vec::new(),
            Source::Checkpoint => self.checkpoint.clone().unwrap(),
            Source::Peers(holders) => {
                let states: BTreeSet<_> = holders
                    .iter()
                    .map(|rank| world.arrived[&world.members[*rank as usize]].clone())
                    .collect();
                assert_eq!(states.len(), 1, "holders differ");
                states.into_iter().next().flatten().unwrap()
            }
        };
        assert_eq!(state.len(), begins_at);
        let process = self.processes.get_mut(worker).unwrap();
        process.held = Some(state);
        process.place = Place::Working { entered: false };
        let opening = world.opening;
        self.say(Event::Ready {
            worker: worker.clone(),
            generation: number,
        });
        self.at_a_place(worker, number, opening.evaluate, opening.snapshot);
        if opening.finish {
            self.leaves(worker, number);
        }
    }

    fn fails(&mut self, worker: &WorkerId, generation: u64) {
        self.say(Event::Fault {
            worker: worker.clone(),
            generation,
            step: 0,
            class: FaultClass::Collective,
            message: "connection closed by peer".to_owned(),
        });
        if self.processes.contains_key(worker) {
            self.stands_by(worker, generation);
        }
    }

    fn works(&mut self, worker: &WorkerId, entered: bool) {
        let process = self.processes.get_mut(worker).unwrap();
        let number = process.generation;
        let step = process.held.as_ref().unwrap().len() as u64;
        if process.pending.is_some() {
            let process = process.clone();
            if self.is_settled(&process) {
                self.checkpoint.clone_from(&process.pending);
                self.processes.get_mut(worker).unwrap().pending = None;
                let step = process.pending.map_or(0, |state| state.len() as u64);
                self.say(Event::CheckpointEnded {
                    step,
                    problem: None,
                });
                return;
            }
        }
        if step == 4 {
            self.leaves(worker, number);
            return;
        }
        let process = self.processes.get_mut(worker).unwrap();
        let world = self.worlds.get_mut(&number).unwrap();
        if !entered {
            process.place = Place::Working { entered: true };
            world
                .entered
                .entry(step)
                .or_default()
                .insert(worker.clone());
            *world.asked.entry(step).or_default() |= process.boundary;
            return;
        }
        if world.entered[&step].len() < world.members.len() {
            self.fails(worker, number);
            return;
        }
        let boundary = world.asked[&step];
        process.held.as_mut().unwrap().push(number);
        process.place = Place::Working { entered: false };
        self.say(Event::Progress {
            worker: worker.clone(),
            generation: number,
            report: report(step),
        });
        let plan = RunPlan::new(self.sim.state().config().shape, 1).unwrap();
        let (evaluate, snapshot) = (
            plan.evaluated_epoch(step + 1).is_some(),
            plan.has_snapshot(step + 1),
        );
        self.at_a_place(worker, number, evaluate, snapshot);
        if boundary {
            let process = self.processes.get_mut(worker).unwrap();
            process.place = Place::Apart;
            process.pending = None;
            self.say(Event::Standby {
                worker: worker.clone(),
                generation: number,
                step: Some(step + 1),
                micro_batches: Vec::new(),
            });
        }
    }

    /// Evaluation and checkpoint, as far as rank 0 stands for all.
    fn at_a_place(&mut self, worker: &WorkerId, number: u64, evaluate: bool, snapshot: bool) {
        if self.worlds[&number].members.first() != Some(worker) {
            return;
        }
        let held = self.processes[worker].held.clone().unwrap();
        let step = held.len() as u64;
        if evaluate {
            self.say(Event::Scored {
                step,
                scored: VAL,
                samples: VAL,
            });
            self.say(Event::Evaluated {
                step,
                problem: None,
                map_bits: None,
            });
        }
        if snapshot {
            self.processes.get_mut(worker).unwrap().pending = Some(held);
        }
    }

    fn leaves(&mut self, worker: &WorkerId, generation: u64) {
        let process = self.processes.get_mut(worker).unwrap();
        process.place = Place::Left;
        let step = process.held.as_ref().unwrap().len() as u64;
        self.say(Event::Leaving {
            worker: worker.clone(),
            generation,
            step,
            reason: LeaveReason::Finished,
        });
    }
}
