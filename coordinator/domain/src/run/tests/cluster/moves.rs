//! The moves of the loom: everything that can happen now, one of them happening, and time passing.

use super::*;

#[derive(Debug, Clone)]
pub(super) enum Move {
    Hear(WorkerId),
    Act(WorkerId),
    ComeBack(WorkerId),
    LoseStream(WorkerId),
    Exit(WorkerId),
}

impl Cluster {
    /// Everything that can happen now, but for faults and time.
    pub(super) fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for (worker, process) in &self.processes {
            if process.stopped {
                continue;
            }
            if !process.heard.is_empty() {
                moves.push(Move::Hear(worker.clone()));
            } else if !process.connected && process.place != Place::Starting && self.away.is_none()
            {
                moves.push(Move::ComeBack(worker.clone()));
            }
            if !process.hangs && self.can_act(worker, process) {
                moves.push(Move::Act(worker.clone()));
            }
        }
        for (worker, corpse) in &self.corpses {
            if self.away.is_some() {
                break;
            }
            if corpse.stream {
                moves.push(Move::LoseStream(worker.clone()));
            }
            if corpse.exit {
                moves.push(Move::Exit(worker.clone()));
            }
        }
        moves
    }

    fn can_act(&self, worker: &WorkerId, process: &Process) -> bool {
        match process.place {
            Place::Starting => self.away.is_none(),
            Place::Apart => process.says_again || process.present > process.generation,
            Place::Left => false,
            Place::Working { .. } | Place::Settling(_) if process.to_score.is_some() => true,
            Place::Working { .. } | Place::Settling(_) if process.meets.is_some() => {
                let world = &self.worlds[&process.generation];
                world.has_scored(process.meets) || !world.gone.is_empty()
            }
            Place::Settling(_) => process.pending.is_none() || self.is_settled(process),
            Place::Forming => {
                let world = &self.worlds[&process.generation];
                !world.arrived.contains_key(worker)
                    || world.arrived.len() == world.members.len()
                    || !world.gone.is_empty()
            }
            Place::Working { entered } => {
                let world = &self.worlds[&process.generation];
                let step = process.held.as_ref().map_or(0, Vec::len) as u64;
                let all = world
                    .entered
                    .get(&step)
                    .is_some_and(|entered| entered.len() == world.members.len());
                !entered || all || !world.gone.is_empty()
            }
        }
    }

    pub(super) fn is_settled(&self, process: &Process) -> bool {
        let held = self.sim.state().steps_held_by_all();
        process.connected
            && process
                .pending
                .as_ref()
                .is_some_and(|state| state.len() as u64 <= held)
    }

    pub(super) fn do_move(&mut self, what: &Move) {
        match what {
            Move::Hear(worker) => self.hears(worker),
            Move::Act(worker) => self.acts(worker),
            Move::ComeBack(worker) => self.comes_back(worker),
            Move::LoseStream(worker) => {
                self.corpses.get_mut(worker).unwrap().stream = false;
                self.say(Event::StreamLost {
                    worker: worker.clone(),
                    detail: "reset".to_owned(),
                });
            }
            Move::Exit(worker) => {
                let corpse = self.corpses.get_mut(worker).unwrap();
                corpse.exit = false;
                let end = corpse.end;
                // An operating system tells of both before it starts another of that name.
                if std::mem::take(&mut corpse.stream) {
                    self.say(Event::StreamLost {
                        worker: worker.clone(),
                        detail: "reset".to_owned(),
                    });
                }
                self.say(Event::Exited {
                    worker: worker.clone(),
                    end,
                    log: Vec::new(),
                });
            }
        }
    }

    /// Nothing moves any more: time passes, those who live say so, and what is known is written.
    pub(super) fn wait(&mut self) {
        let running = |(_, process): &(&WorkerId, &Process)| !process.stopped;
        let running: Vec<_> = self.processes.iter().filter(running).collect();
        let running: Vec<_> = running.into_iter().map(|(name, _)| name.clone()).collect();
        for worker in running {
            self.beats(&worker);
            self.runs_out_of_patience(&worker);
        }
        self.durable = self.ledger.clone();
        self.sim.now = self.sim.now.after(Millis(1000));
        self.say(Event::Tick);
    }
}
