//! Which fault was first in causal order. Peers of a dead rank report failed collectives; they are witnesses, and the
//! cause is looked for elsewhere for as long as [`Deadline::Cause`](super::Deadline::Cause) allows.

use super::event::{FaultClass, ProcessEnd};
use super::{Deadline, Effect, Millis, Phase, State};
use crate::membership::{Process, Session, WorkerId};

/// What speaks against one worker.
#[derive(Debug, Clone, Default)]
pub(super) struct Evidence {
    /// Its own first report that is not about a collective.
    fault: Option<(FaultClass, u64, String)>,
    /// Its own report of a failed collective: it is a witness.
    collective: Option<(u64, String)>,
    /// How its process ended, and its log's last lines.
    exited: Option<(ProcessEnd, Vec<String>)>,
    /// What the transport said when its stream broke.
    stream: Option<String>,
}

/// The exit status by which a worker says that someone else is lost.
const PEER_LOST: ProcessEnd = ProcessEnd::Code(75);

impl State {
    pub(super) fn on_fault(
        &mut self,
        worker: &WorkerId,
        generation: u64,
        step: u64,
        class: FaultClass,
        message: &str,
        now: Millis,
    ) -> Vec<Effect> {
        if generation != 0 && generation != self.generation {
            return Vec::new();
        }
        let evidence = self.evidence_against(worker);
        match class {
            FaultClass::Collective => {
                evidence
                    .collective
                    .get_or_insert((step, message.to_owned()));
            }
            _ => {
                evidence
                    .fault
                    .get_or_insert((class, step, message.to_owned()));
            }
        }
        self.judge(now)
    }

    pub(super) fn on_stream_lost(
        &mut self,
        worker: &WorkerId,
        detail: &str,
        now: Millis,
    ) -> Vec<Effect> {
        let Some(member) = self.roster.get_mut(worker) else {
            return Vec::new();
        };
        member.session = Session::Lost;
        let elsewhere = member.process == Process::Elsewhere;
        let left = member.leaving.is_some();
        self.deadlines.remove(&Deadline::Heartbeat(worker.clone()));
        match self.phase {
            Phase::Ending { .. } | Phase::Over(_) => return Vec::new(),
            Phase::Waiting if elsewhere => {
                self.roster.forget(worker);
                return vec![Effect::Warn {
                    text: format!("{worker} went before the run began: {detail}"),
                }];
            }
            // It said that it would go, and has nothing left to hand over.
            _ if left => return Vec::new(),
            _ => {}
        }
        self.evidence_against(worker)
            .stream
            .get_or_insert(detail.to_owned());
        self.judge(now)
    }

    pub(super) fn on_exited(
        &mut self,
        worker: &WorkerId,
        end: ProcessEnd,
        log: &[String],
        now: Millis,
    ) -> Vec<Effect> {
        let Some(member) = self.roster.get_mut(worker) else {
            return Vec::new();
        };
        member.process = Process::Ended(end);
        let left = member.leaving.is_some();
        if left || matches!(self.phase, Phase::Ending { .. } | Phase::Over(_)) {
            return Vec::new();
        }
        self.evidence_against(worker)
            .exited
            .get_or_insert((end, log.to_vec()));
        self.judge(now)
    }

    fn evidence_against(&mut self, worker: &WorkerId) -> &mut Evidence {
        if !self.evidence.iter().any(|(known, _)| known == worker) {
            self.evidence.push((worker.clone(), Evidence::default()));
        }
        // It was there, or has just been pushed to the end.
        let at = self
            .evidence
            .iter()
            .position(|(known, _)| known == worker)
            .unwrap_or(0);
        &mut self.evidence[at].1
    }

    /// Ends the run if the cause is clear, or else waits for it.
    fn judge(&mut self, now: Millis) -> Vec<Effect> {
        if matches!(self.phase, Phase::Ending { .. } | Phase::Over(_)) {
            return Vec::new();
        }
        match self
            .evidence
            .iter()
            .find(|(worker, evidence)| self.is_cause(worker, evidence))
        {
            Some((worker, evidence)) => {
                let (worker, evidence) = (worker.clone(), evidence.clone());
                self.convict(worker, evidence, now)
            }
            None => {
                if !self.deadlines.contains_key(&Deadline::Cause) {
                    self.set(Deadline::Cause, now.after(self.config.timeouts.cause));
                }
                Vec::new()
            }
        }
    }

    /// Whether this alone is certain to be the cause.
    fn is_cause(&self, worker: &WorkerId, evidence: &Evidence) -> bool {
        if evidence.fault.is_some() {
            return true;
        }
        if evidence.collective.is_some() {
            return false;
        }
        let Some(member) = self.roster.get(worker) else {
            return true;
        };
        match (&evidence.exited, &evidence.stream) {
            // A killed process has nothing more to say.
            (Some((ProcessEnd::Signal(_), _)), _) => true,
            (Some((PEER_LOST, _)), _) => false,
            // Its last words may still be on their way, ahead of the stream's end.
            (Some(_), _) => member.session != Session::Open,
            // A process elsewhere is known by its stream alone.
            (None, Some(_)) => member.process == Process::Elsewhere,
            (None, None) => false,
        }
    }

    /// The time for the cause to show is over: the best guess is the cause.
    pub(super) fn convict_the_likeliest(&mut self, now: Millis) -> Vec<Effect> {
        let likelihood = |evidence: &Evidence| match evidence {
            Evidence {
                collective: None,
                exited: Some((end, _)),
                ..
            } if *end != PEER_LOST => 3,
            Evidence {
                collective: None,
                stream: Some(_),
                ..
            } => 2,
            Evidence {
                collective: None, ..
            } => 1,
            _ => 0,
        };
        // Of equals the first that showed.
        let mut likeliest: Option<&(WorkerId, Evidence)> = None;
        for candidate in &self.evidence {
            if likeliest.is_none_or(|best| likelihood(&candidate.1) > likelihood(&best.1)) {
                likeliest = Some(candidate);
            }
        }
        match likeliest.cloned() {
            Some((worker, evidence)) => self.convict(worker, evidence, now),
            None => Vec::new(),
        }
    }

    fn convict(&mut self, worker: WorkerId, evidence: Evidence, now: Millis) -> Vec<Effect> {
        let who = match self.roster.get(&worker).and_then(|member| member.rank) {
            Some(rank) => format!("{worker} (rank {rank})"),
            None => worker.to_string(),
        };
        let place = match self.generation {
            0 => "before the first generation".to_owned(),
            generation => format!("in generation {generation} after {} steps", self.steps_done),
        };
        let (exit_code, reason) = match &evidence {
            Evidence {
                fault: Some((class, step, message)),
                ..
            } => {
                let at = if self.generation == 0 {
                    String::new()
                } else {
                    format!(" at step {step}")
                };
                (exit_code(*class), format!("{who}{at}: {message}"))
            }
            Evidence {
                exited: Some((end, _)),
                collective: None,
                ..
            } => {
                let code = match end {
                    ProcessEnd::Code(64) => 64,
                    ProcessEnd::Code(65) => 65,
                    _ => 75,
                };
                (
                    code,
                    format!("{who} {end} {place}: see the end of its log; resume with --resume"),
                )
            }
            Evidence {
                stream: Some(detail),
                collective: None,
                ..
            } => (
                75,
                format!("{who} was lost {place}: {detail}; resume with --resume"),
            ),
            Evidence {
                collective: Some((step, message)),
                ..
            } => (
                75,
                format!(
                    "{who} reports a failed collective at step {step} and no peer shows why: {message}; resume with --resume"
                ),
            ),
            _ => (75, format!("{who} was lost {place}; resume with --resume")),
        };
        let log = evidence.exited.map(|(_, log)| log).unwrap_or_default();
        self.fail(exit_code, reason, Some(worker), log, now)
    }

    /// What was noticed first, while its cause is being looked for.
    pub(super) fn noticed(&self) -> Option<String> {
        let (worker, evidence) = self.evidence.first()?;
        Some(match evidence {
            Evidence {
                fault: Some((_, _, message)),
                ..
            } => format!("{worker} reports: {message}"),
            Evidence {
                collective: Some((step, message)),
                ..
            } => {
                format!("{worker} reports a failed collective at step {step}: {message}")
            }
            Evidence {
                exited: Some((end, _)),
                ..
            } => format!("{worker} {end}"),
            Evidence {
                stream: Some(detail),
                ..
            } => format!("the stream of {worker} broke: {detail}"),
            _ => format!("{worker} is in doubt"),
        })
    }
}

/// The exit code that says what to do about a fault.
fn exit_code(class: FaultClass) -> u8 {
    match class {
        FaultClass::Collective | FaultClass::Memory => 75,
        FaultClass::Data => 65,
        // Trying again ends the same way: the config has to change.
        FaultClass::Numeric | FaultClass::Config => 64,
        FaultClass::Internal => 1,
    }
}
