//! The end of a run whose last checkpoint could not be written: its members hold the only copy of what was trained.

use super::words::resumes;
use super::{Deadline, Effect, Millis, State};
use crate::numbers::grouped;

/// Tries before the run gives up on the disk: with the default `fault.timeout` of 5 s they take ten minutes, in which
/// somebody may make room.
const TRIES: u32 = 120;

impl State {
    /// All members have done everything and the last checkpoint is not in place: they keep the state, and hand it over
    /// again after a while.
    pub(super) fn hand_over_again(&mut self, now: Millis) -> Vec<Effect> {
        let step = self.total_steps();
        let problem = self.checkpoint_problem.clone();
        let problem = problem.unwrap_or_else(|| "it never came in whole".to_owned());
        self.handovers += 1;
        if self.handovers > TRIES {
            let reason = format!(
                "all steps are done, but the last checkpoint is not in place after {TRIES} tries ({problem}): make room, \
                 then {}",
                resumes(self.checkpointed.unwrap_or(0))
            );
            return self.stopped(75, reason, now);
        }
        let text = format!(
            "all steps are done, but the checkpoint of step {} is not in place: {problem}",
            grouped(step)
        );
        let mut effects = Vec::new();
        if self.handovers == 1 {
            let timeout = self.config.timeouts.fault;
            let text = format!("{text}; it is handed over again every {timeout}");
            effects.push(Effect::Warn { text });
            // The first time it may have been lost with who was sending it.
        } else {
            self.set(Deadline::Handover, now.after(self.config.timeouts.fault));
        }
        self.explained = true;
        effects.extend(self.regroup(text, now));
        effects
    }
}
