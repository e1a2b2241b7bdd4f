//! What it means that something was waited for in vain.

use super::restart::LossClass;
use super::words::steps;
use super::{Deadline, Effect, Millis, State};
use crate::membership::Names;
use crate::numbers::grouped;

/// The earliest deadline that is over.
pub(super) fn next_expired(state: &State, now: Millis) -> Option<Deadline> {
    state
        .next_deadline()
        .filter(|(_, at)| *at <= now)
        .map(|(deadline, _)| deadline.clone())
}

/// What a passed deadline changes. It no longer runs afterwards.
pub(super) fn expire(state: &mut State, deadline: &Deadline, now: Millis) -> Vec<Effect> {
    state.deadlines.remove(deadline);
    let timeouts = state.config.timeouts;
    match deadline {
        Deadline::Join => state.on_join_expired(now),
        Deadline::Forming => {
            let unready = state
                .roster
                .which(|member| member.is_member() && !member.ready);
            // Of these, whoever waits in a collective is kept from being ready by those who do not.
            let outside = state
                .roster
                .which(|member| member.is_member() && !member.ready && !member.waits_for_others());
            let late = if outside.is_empty() { unready } else { outside };
            let mut effects = Vec::new();
            for worker in late {
                let text = format!(
                    "{} did not become ready in generation {} within {}: see its log",
                    state.name(&worker),
                    state.generation,
                    timeouts.forming
                );
                effects.extend(state.give_up_on(&worker, LossClass::Hang, text, now));
            }
            effects
        }
        Deadline::Heartbeat(worker) => state.on_silence(worker, now),
        Deadline::Regroup => state.give_up_on_those_inside(now),
        Deadline::Progress => state.on_standstill(now),
        Deadline::Exit(worker) => vec![Effect::Kill {
            worker: worker.clone(),
        }],
        // The restart itself follows every event.
        Deadline::Respawn(_) => Vec::new(),
        Deadline::Arrival(worker) => {
            let text = format!(
                "{worker} was started again and did not set up within {}: see its log",
                timeouts.join
            );
            state.give_up_on(worker, LossClass::Crash, text, now)
        }
        Deadline::Handover => state.form_if_possible(now),
        Deadline::Drain(worker) => state.on_grace_expired(worker, now),
        Deadline::Stop => {
            let missing = state
                .roster
                .which(|member| member.is_member() && member.leaving.is_none());
            let reason = format!(
                "stopped without a new checkpoint: {} did not come to a step boundary within {}; \
                 resume with --resume",
                Names(&missing),
                timeouts.stop
            );
            state.stopped(75, reason, now)
        }
        Deadline::Evaluation => {
            let evaluations = std::mem::take(&mut state.evaluations);
            evaluations
                .into_keys()
                .map(|step| Effect::Warn {
                    text: format!(
                        "the evaluation after {} has no figures after {}",
                        steps(step),
                        timeouts.evaluation
                    ),
                })
                .collect()
        }
        Deadline::Checkpoint(step) => {
            let text = format!(
                "nothing more of the checkpoint of step {} has come in for {}: \
                 look at the disk and at rank 0's connection",
                grouped(*step),
                timeouts.checkpoint
            );
            vec![Effect::Warn { text }]
        }
        Deadline::Release | Deadline::Terminate => state.escalate(now),
        Deadline::Kill => {
            let left = state.roster.which(|member| !member.is_gone());
            let text = format!(
                "{} could not be ended: end what is left by hand",
                Names(&left)
            );
            vec![Effect::Warn { text }]
        }
    }
}
