//! Faults: what befalls workers, and a coordinator that dies and is started again with what it has written.

use super::*;

impl Cluster {
    pub(super) fn suffer(&mut self, fault: &Fault) {
        match fault {
            Fault::Kill(victim) => self.kill(&WorkerId::local(*victim)),
            Fault::Stop(victim) => {
                if let Some(process) = self.processes.get_mut(&WorkerId::local(*victim)) {
                    process.stopped = true;
                }
            }
            Fault::TellToEnd(victim) => {
                // With all of them told to end the run would end, and rightly.
                let told = |process: &&Process| process.draining.is_some();
                let told = self.processes.values().filter(told).count();
                if told + 1 < self.processes.len() {
                    self.is_told_to_end(&WorkerId::local(*victim));
                }
            }
            Fault::Hang(victim) => {
                if let Some(process) = self.processes.get_mut(&WorkerId::local(*victim)) {
                    // A start that hangs has a deadline of its own.
                    process.hangs = process.place != Place::Starting;
                }
            }
            Fault::Coordinator { heard, away } => self.lose_coordinator(*heard, *away),
        }
    }

    fn lose_coordinator(&mut self, heard: usize, away: usize) {
        self.away = Some(away);
        for process in self.processes.values_mut() {
            process.connected = false;
            process.heard.truncate(heard);
        }
        for corpse in self.corpses.values_mut() {
            corpse.stream = false;
        }
    }

    /// Whether the coordinator is to be started again now, one move later than when this was asked last.
    pub(super) fn is_back(&mut self, nothing_moves: bool) -> bool {
        match &mut self.away {
            Some(left) if *left > 0 && !nothing_moves => {
                *left -= 1;
                false
            }
            away => away.is_some(),
        }
    }

    /// What `coordinator start --resume` does.
    pub(super) fn start_again(&mut self) {
        self.away = None;
        self.ledger = self.durable.clone();
        let evaluated = self.evaluated.iter().copied().collect();
        let adopted = Adopted::of(&self.ledger, evaluated, Millis(0));
        let config = self.sim.state().config().clone();
        let begins_at_step = self.checkpoint.as_ref().map_or(0, Vec::len) as u64;
        let plan = RunPlan::new(config.shape, 1).unwrap();
        let config = Config {
            begins_at_step,
            from_checkpoint: self.checkpoint.is_some(),
            evaluate_first: plan.evaluated_epoch(begins_at_step).is_some()
                && !self.evaluated.contains(&begins_at_step),
            last_generation: self.ledger.current().map_or(0, |newest| newest.number),
            left_waiting: adopted.is_none(),
            adopted,
            ..config
        };
        // Its launcher watches those who live, and tells of those who do not.
        for worker in (0..WORKERS).map(WorkerId::local) {
            if let Some(process) = self.processes.get_mut(&worker) {
                process.adopted = true;
                continue;
            }
            let unseen = self.corpses.get(&worker).is_some_and(|corpse| corpse.exit);
            let corpse = Corpse {
                stream: false,
                exit: true,
                end: if unseen {
                    ProcessEnd::Unseen
                } else {
                    ProcessEnd::Known
                },
            };
            self.corpses.insert(worker, corpse);
        }
        self.sim = Sim::new(config);
        self.seen = 0;
        self.carry_out();
    }

    /// A worker has found the coordinator that was started again, and tells what that one may not know.
    pub(super) fn comes_back(&mut self, worker: &WorkerId) {
        let generation = self.processes[worker].present;
        let welcomed = self.joins(worker, generation);
        assert!(welcomed, "{worker} was refused, and what it holds is lost");
        // Before it says where it stands, which may be beyond.
        let kept = std::mem::take(&mut self.processes.get_mut(worker).unwrap().kept);
        for (step, rows) in kept {
            self.take_scores(step, &rows);
        }
        let known = self.sim.state().steps_done();
        let process = &self.processes[worker];
        let reports = process.reports.iter().filter(|event| match event {
            Event::Progress { report, .. } => report.step + 2 >= known,
            _ => false,
        });
        let again: Vec<_> = reports.chain(&process.standing).cloned().collect();
        for event in again {
            self.say(event);
        }
    }
}
