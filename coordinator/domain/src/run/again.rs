//! A worker whose process cannot go on as it is and executes itself again.

use super::restart::LossClass;
use super::{Deadline, Effect, Millis, State};
use crate::membership::{Process, WorkerId};

impl State {
    /// A worker's process executes itself again. That is a crash like any other, but for its process, which lives: it is
    /// let go, and comes as a new worker, and is charged for then. If it ends after all, its end is charged for.
    pub(super) fn on_begins_again(
        &mut self,
        worker: &WorkerId,
        text: String,
        now: Millis,
    ) -> Vec<Effect> {
        let text = format!("{text}; its process executes itself again");
        let Some(process) = self.end_session(worker) else {
            return Vec::new();
        };
        let mut effects = vec![
            Effect::Warn { text: text.clone() },
            Effect::Release {
                worker: worker.clone(),
                reason: "this process executes itself again".to_owned(),
                exit_code: 75,
            },
            Effect::Close {
                worker: worker.clone(),
            },
        ];
        effects.extend(self.lose(worker, text.clone(), now));
        if process == Process::Elsewhere {
            effects.extend(self.replace(worker, LossClass::Crash, text, now));
            self.roster.forget(worker);
        } else {
            if let Some(mut member) = self.roster.get_mut(worker) {
                member.executes_again = Some(text);
            }
            let arrival = now.after(self.config.timeouts.join);
            self.set(Deadline::Arrival(worker.clone()), arrival);
        }
        effects.extend(self.form_if_possible(now));
        effects
    }
}
