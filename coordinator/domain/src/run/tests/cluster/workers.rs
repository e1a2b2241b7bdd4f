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
                process.present = number;
                process.over = false;
                process.boundary = false;
                process.standing = None;
            }
            Effect::Regroup { at_boundary, .. } if at_boundary => process.boundary = true,
            Effect::Regroup { .. } if process.present > process.generation => process.over = true,
            Effect::Regroup { .. } if process.place != Place::Apart => {
                if process.hangs {
                    self.executes_again(worker);
                } else {
                    self.stands_by(worker, generation);
                }
            }
            Effect::Regroup { .. } => process.says_again = generation != 0,
            _ => {}
        }
    }

    /// Says something to the coordinator, and remembers it for the next one as far as it matters.
    fn tell(&mut self, worker: &WorkerId, event: Event) {
        let process = self.processes.get_mut(worker).unwrap();
        if let Event::Standby { generation, .. } | Event::Leaving { generation, .. } = &event
            && *generation < process.present
        {
            return;
        }
        match &event {
            Event::Progress { .. } => process.reports.push(event.clone()),
            Event::Ready { .. } => {
                process.reports.clear();
                process.standing = None;
            }
            Event::Standby { .. } | Event::Leaving { .. } => process.standing = Some(event.clone()),
            _ => {}
        }
        if process.connected {
            self.say(event);
        }
    }

    pub(super) fn is_told_to_end(&mut self, worker: &WorkerId) {
        let Some(process) = self.processes.get_mut(worker) else {
            return;
        };
        process.draining = Some(0);
        let apart = matches!(process.place, Place::Starting | Place::Apart);
        if apart && process.held.is_none() {
            // Nobody needs it.
            self.end(worker, ProcessEnd::Code(0));
        } else if !process.stopped {
            self.beats(worker);
        }
    }

    pub(super) fn beats(&mut self, worker: &WorkerId) {
        let process = &self.processes[worker];
        let draining = process.draining.is_some();
        let in_collective = match process.place {
            Place::Working { entered } => entered || process.meets.is_some(),
            Place::Settling(_) => process.meets.is_some(),
            Place::Forming => self.worlds[&process.generation]
                .arrived
                .contains_key(worker),
            Place::Starting | Place::Apart | Place::Left => false,
        };
        if self.is_connected(worker) {
            self.say(Event::Heartbeat {
                worker: worker.clone(),
                collective: "all-reduce".to_owned(),
                in_collective,
                draining,
            });
        }
    }

    /// Its training thread does not leave a generation that is over: it cuts its connections, and says that it begins again.
    fn executes_again(&mut self, worker: &WorkerId) {
        let process = self.processes.get_mut(worker).unwrap();
        let generation = process.generation;
        if !process.connected {
            // It could not be told from one that ended and was started again.
            return self.end(worker, ProcessEnd::Code(75));
        }
        let adopted = process.adopted;
        process.connected = false;
        self.leave(worker, generation);
        let before = self.sim.effects.len();
        self.say(Event::Fault {
            worker: worker.clone(),
            generation,
            step: 0,
            class: FaultClass::Restart,
            message: "its training thread did not leave it".to_owned(),
        });
        let released = Effect::Close {
            worker: worker.clone(),
        };
        if self.processes.contains_key(worker) {
            assert!(self.sim.effects[before..].contains(&released));
            let process = Process {
                adopted,
                ..Process::default()
            };
            self.processes.insert(worker.clone(), process);
        }
    }

    /// A worker that was told to end waits 8 s for others to take what it holds.
    pub(super) fn runs_out_of_patience(&mut self, worker: &WorkerId) {
        let Some(process) = self.processes.get_mut(worker) else {
            return;
        };
        if process.hangs {
            return;
        }
        if let (Place::Apart, Some(waited)) = (process.place, &mut process.draining) {
            *waited += 1;
            if *waited >= 8 {
                self.end(worker, ProcessEnd::Code(0));
            }
        }
    }

    /// Opens a session; whoever is not let in ends.
    pub(super) fn joins(&mut self, worker: &WorkerId, generation: u64) -> bool {
        self.processes.get_mut(worker).unwrap().connected = true;
        let before = self.sim.effects.len();
        self.say(Event::Joined {
            worker: worker.clone(),
            host: String::new(),
            pid: 1,
            device: String::new(),
            generation,
        });
        let welcome = Effect::Welcome {
            worker: worker.clone(),
        };
        let welcomed = self.sim.effects[before..].contains(&welcome);
        if !welcomed {
            self.end(worker, ProcessEnd::Code(75));
        }
        welcomed
    }

    fn stands_by(&mut self, worker: &WorkerId, generation: u64) {
        self.leave(worker, generation);
        self.says_where_it_stands(worker, generation);
    }

    fn says_where_it_stands(&mut self, worker: &WorkerId, generation: u64) {
        let micro_batches = self.micro_batches_done(worker);
        let process = self.processes.get_mut(worker).unwrap();
        process.place = Place::Apart;
        process.pending = None;
        process.to_score = None;
        process.meets = None;
        let step = process.held.as_ref().map(|held| held.len() as u64);
        if step.is_none() && process.draining.is_some() && generation != 0 {
            self.leaves(worker, generation, LeaveReason::Signalled);
            return self.end(worker, ProcessEnd::Code(0));
        }
        let standby = Event::Standby {
            worker: worker.clone(),
            generation,
            step,
            micro_batches,
        };
        self.tell(worker, standby);
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
        let settled = self.is_settled(&self.processes[worker]);
        let process = self.processes.get_mut(worker).unwrap();
        match process.place {
            Place::Starting => {
                process.place = Place::Apart;
                if self.joins(worker, 0) {
                    self.stands_by(worker, 0);
                }
            }
            Place::Apart if process.says_again => {
                process.says_again = false;
                let generation = process.generation;
                self.stands_by(worker, generation);
            }
            Place::Apart => {
                process.generation = process.present;
                process.place = Place::Forming;
                if process.over {
                    let generation = process.present;
                    self.stands_by(worker, generation);
                }
            }
            Place::Forming => self.forms(worker),
            Place::Working { .. } | Place::Settling(_) if process.to_score.is_some() => {
                self.scores(worker);
            }
            Place::Working { .. } | Place::Settling(_) if process.meets.is_some() => {
                self.meets(worker);
            }
            Place::Working { .. } | Place::Settling(_) if settled => {
                self.hands_over(worker);
            }
            Place::Working { entered } => self.works(worker, entered),
            Place::Settling(way) => self.has_settled(worker, way),
            Place::Left => {}
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
        let ready = Event::Ready {
            worker: worker.clone(),
            generation: number,
        };
        self.tell(worker, ready);
        self.at_a_place(worker, number, opening.evaluate, opening.snapshot);
        if opening.finish {
            self.settles(worker, Way::Finished);
        }
    }

    pub(super) fn settles(&mut self, worker: &WorkerId, way: Way) {
        if let Some(process) = self.processes.get_mut(worker) {
            process.place = Place::Settling(way);
        }
    }

    /// The ledger is written before a checkpoint is in place.
    fn hands_over(&mut self, worker: &WorkerId) {
        let process = self.processes.get_mut(worker).unwrap();
        let Some(state) = process.pending.take() else {
            return;
        };
        let step = state.len() as u64;
        self.durable = self.ledger.clone();
        self.checkpoint = Some(state);
        self.say(Event::CheckpointEnded {
            step,
            problem: None,
        });
    }

    fn has_settled(&mut self, worker: &WorkerId, way: Way) {
        let process = &self.processes[worker];
        let (generation, told) = (process.generation, process.draining.is_some());
        match way {
            Way::Finished => self.leaves(worker, generation, LeaveReason::Finished),
            Way::Stopped => self.leaves(worker, generation, LeaveReason::Stopped),
            Way::Drained if told => self.leaves(worker, generation, LeaveReason::Signalled),
            // Its peers may still be in the last collective: the group stands until all have come.
            Way::Drained | Way::Boundary => self.says_where_it_stands(worker, generation),
        }
    }

    pub(super) fn fails(&mut self, worker: &WorkerId, generation: u64) {
        let fault = Event::Fault {
            worker: worker.clone(),
            generation,
            step: 0,
            class: FaultClass::Collective,
            message: "connection closed by peer".to_owned(),
        };
        self.tell(worker, fault);
        if self.processes.contains_key(worker) {
            self.stands_by(worker, generation);
        }
    }

    fn works(&mut self, worker: &WorkerId, entered: bool) {
        let process = self.processes.get_mut(worker).unwrap();
        let number = process.generation;
        let step = process.held.as_ref().unwrap().len() as u64;
        let world = self.worlds.get_mut(&number).unwrap();
        if !entered {
            process.place = Place::Working { entered: true };
            world
                .entered
                .entry(step)
                .or_default()
                .insert(worker.clone());
            *world.asked.entry(step).or_default() |= process.boundary;
            *world.draining.entry(step).or_default() += u32::from(process.draining.is_some());
            return;
        }
        if world.entered[&step].len() < world.members.len() {
            self.fails(worker, number);
            return;
        }
        let way = match world.draining[&step] as usize {
            draining if draining == world.members.len() => Some(Way::Stopped),
            1.. => Some(Way::Drained),
            0 => world.asked[&step].then_some(Way::Boundary),
        };
        process.held.as_mut().unwrap().push(number);
        process.place = Place::Working { entered: false };
        let progress = Event::Progress {
            worker: worker.clone(),
            generation: number,
            report: report(step),
        };
        self.tell(worker, progress);
        let Some(way) = way else {
            let plan = RunPlan::new(self.sim.state().config().shape, 1).unwrap();
            let evaluate = plan.evaluated_epoch(step + 1).is_some();
            return self.at_a_place(worker, number, evaluate, plan.has_snapshot(step + 1));
        };
        // What comes after the step is left to the next generation, but for what is put into safety before somebody goes.
        self.at_a_place(worker, number, false, way != Way::Boundary);
        self.settles(worker, way);
    }

    /// Evaluation, and the checkpoint, as far as rank 0 stands for all.
    pub(super) fn at_a_place(
        &mut self,
        worker: &WorkerId,
        number: u64,
        evaluate: bool,
        snapshot: bool,
    ) {
        let Some(process) = self.processes.get_mut(worker) else {
            return;
        };
        let held = process.held.clone().unwrap();
        let step = held.len() as u64;
        process.to_score = evaluate.then_some(step);
        if snapshot && self.worlds[&number].members.first() == Some(worker) {
            process.pending = Some(held);
        }
        if step == 4 {
            process.place = Place::Settling(Way::Finished);
        }
    }

    fn leaves(&mut self, worker: &WorkerId, generation: u64, reason: LeaveReason) {
        let process = self.processes.get_mut(worker).unwrap();
        process.place = Place::Left;
        let step = process.held.as_ref().map_or(0, |held| held.len() as u64);
        let leaving = Event::Leaving {
            worker: worker.clone(),
            generation,
            step,
            reason,
        };
        self.tell(worker, leaving);
    }
}
