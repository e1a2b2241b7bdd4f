//! Steps as ranks report them: who committed what, whether they agree, and when an evaluation is due.

use std::collections::BTreeMap;

use super::event::StepReport;
use super::restart::LossClass;
use super::words::steps;
use super::{Deadline, Effect, Millis, Phase, State};
use crate::membership::{Group, Names, WorkerId};
use crate::numbers::grouped;

/// The reports of the steps that not all ranks have reported yet: `[step][rank]`.
#[derive(Debug, Clone, Default)]
pub(super) struct Reports(BTreeMap<u64, BTreeMap<u32, (WorkerId, StepReport)>>);

/// What replicas are compared by that a worker alone can get wrong, and has right again with the others' state. A difference
/// in anything else means that ranks did not do the same.
const HEALED: [&str; 2] = ["loss", "state hash"];
/// How often a worker may differ from the others before it is shut out.
const OFFENCES: u32 = 2;
/// Steps in a row that may change nothing: after more of them it is the state that is at fault, not the samples.
const PASSED_OVER: u32 = 10;

/// An evaluation that has no figures yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evaluation {
    /// The epoch that has ended, from 0.
    pub epoch: u32,
    /// Samples scored or skipped so far.
    pub scored: u32,
    /// Samples to score.
    pub samples: u32,
}

impl Reports {
    /// Forgets everything: a new generation begins.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Keeps a report; once `world_size` ranks have reported the step, says who differs.
    fn insert(
        &mut self,
        rank: u32,
        worker: &WorkerId,
        report: &StepReport,
        world_size: u32,
    ) -> Option<Result<(), Disagreement>> {
        let step = self.0.entry(report.step).or_default();
        step.insert(rank, (worker.clone(), report.clone()));
        if (step.len() as u64) < u64::from(world_size) {
            return None;
        }
        let step = self.0.remove(&report.step)?;
        Some(compare(&step))
    }
}

/// Ranks that differ from the others in something all must have alike.
struct Disagreement {
    what: &'static str,
    minority: Vec<WorkerId>,
    majority: Vec<WorkerId>,
}

fn compare(reports: &BTreeMap<u32, (WorkerId, StepReport)>) -> Result<(), Disagreement> {
    let differ = |what, key: fn(&StepReport) -> String| {
        let mut groups: BTreeMap<String, Vec<WorkerId>> = BTreeMap::new();
        for (worker, report) in reports.values() {
            groups.entry(key(report)).or_default().push(worker.clone());
        }
        let majority = groups
            .values()
            .max_by_key(|group| group.len())
            .cloned()
            .unwrap_or_default();
        let mut minority: Vec<_> = groups
            .into_values()
            .filter(|group| *group != majority)
            .flatten()
            .collect();
        minority.sort();
        if minority.is_empty() {
            Ok(())
        } else {
            Err(Disagreement {
                what,
                minority,
                majority,
            })
        }
    };
    differ("number of samples", |report| {
        report.samples_in_step.to_string()
    })?;
    differ("verdict on the step", |report| {
        report.passed_over.to_string()
    })?;
    let [loss, state_hash] = HEALED;
    differ(loss, |report| report.loss_bits.to_string())?;
    differ(state_hash, |report| {
        report.state_hash.clone().unwrap_or_default()
    })
}

impl State {
    pub(super) fn on_progress(
        &mut self,
        worker: &WorkerId,
        generation: u64,
        report: &StepReport,
        now: Millis,
    ) -> Vec<Effect> {
        if !self.is_live(generation) {
            return Vec::new();
        }
        let total = self.total_steps();
        let Some(mut member) = self.roster.get_mut(worker) else {
            return Vec::new();
        };
        let Some(rank) = member.rank else {
            return Vec::new();
        };
        if std::mem::take(&mut member.adopted) {
            // It repeats what may have been lost with its coordinator.
            member.next_step = report.step;
        }
        let next = member.next_step;
        if report.step != next || report.step >= total || member.leaving.is_some() {
            drop(member);
            let reason = format!(
                "{worker} (rank {rank}) reported step {} where step {} of {} was next: \
                 the plan was not followed, install the same version everywhere",
                grouped(report.step),
                grouped(next),
                grouped(total)
            );
            return self.fail(1, reason, Some(worker.clone()), Vec::new(), now);
        }
        member.next_step = next + 1;
        member.ready = true;
        member.losses_in_a_row = 0;
        drop(member);
        let mut effects = Vec::new();
        if matches!(self.phase, Phase::Forming) {
            effects.extend(self.begin_training(now));
        }
        if next >= self.steps_done {
            self.steps_done = next + 1;
            self.unexplained = 0;
            effects.push(Effect::Commit {
                generation,
                step: next,
                worker: worker.clone(),
            });
            self.note_place(next + 1);
            self.note_pace(now);
            effects.extend(self.note_passed_over(generation, report, now));
        }
        effects.extend(self.note_rank_pace(worker, report.pace));
        let world_size = self.world_size();
        let compared = self.reports.insert(rank, worker, report, world_size);
        if let Some(Err(disagreement)) = compared {
            effects.extend(self.on_disagreement(next, disagreement, now));
        }
        effects
    }

    /// A step whose loss or gradient was not finite has changed nothing: that is recorded, and too many in a row end the
    /// run.
    fn note_passed_over(
        &mut self,
        generation: u64,
        report: &StepReport,
        now: Millis,
    ) -> Vec<Effect> {
        if !report.passed_over {
            self.passed_over_in_a_row = 0;
            return Vec::new();
        }
        self.passed_over_in_a_row += 1;
        let step = report.step;
        let samples = self.samples_of(step);
        let text = format!(
            "the step after {} was passed over: its loss or gradient is not finite, and its update was not applied; its \
             samples: {samples:?}",
            steps(step)
        );
        let mut effects = vec![Effect::PassOver { generation, step }];
        if self.passed_over_in_a_row > PASSED_OVER {
            let reason = format!(
                "{text}; so were the {PASSED_OVER} steps before it: start a new run with lower train.learning_rate_*, a lower \
                 train.clip_norm (0 is none), or, of bf16, train.precision = \"float32\", from the model.safetensors of a \
                 checkpoint before them if there is one (train.init)"
            );
            effects.extend(self.fail(65, reason, None, Vec::new(), now));
        } else {
            effects.push(Effect::Warn { text });
        }
        effects
    }

    /// The samples of a step, of all ranks.
    pub(super) fn samples_of(&self, step: u64) -> Vec<u32> {
        let epoch = self.plan.epoch_plan(self.plan.epoch_of(step));
        epoch
            .samples_of_step(self.plan.step_in_epoch(step))
            .to_vec()
    }

    /// Replicas that differ: the ones that most others contradict take the state from those, or the run ends if there
    /// is no telling who is right.
    fn on_disagreement(&mut self, step: u64, found: Disagreement, now: Millis) -> Vec<Effect> {
        let Disagreement {
            what,
            minority,
            majority,
        } = found;
        let text = format!(
            "replicas differ after {}: the {what} of {} is not that of {}",
            steps(step + 1),
            Names(&minority),
            Names(&majority)
        );
        let told_apart = majority.len() as u64 * 2 > u64::from(self.world_size());
        if !HEALED.contains(&what) || !told_apart {
            let reason = format!(
                "{text}; resume from the last checkpoint, and look at the device of the ones that differ"
            );
            let culprit = minority.into_iter().next();
            return self.fail(1, reason, culprit, Vec::new(), now);
        }
        let mut effects = Vec::new();
        for worker in minority {
            let Some(mut member) = self.roster.get_mut(&worker) else {
                continue;
            };
            member.offences += 1;
            let offences = member.offences;
            if offences > OFFENCES {
                member.quarantined = true;
                let device = format!("{} of {}", member.device, member.host);
                drop(member);
                let text = format!(
                    "{text}, {offences} times now: {worker} is shut out, look at its device, {device}"
                );
                effects.extend(self.give_up_on(&worker, LossClass::Crash, text, now));
            } else {
                member.suspect = true;
                drop(member);
                self.explained = true;
                let text = format!("{text}: it takes the state from them");
                effects.push(Effect::Warn { text: text.clone() });
                effects.extend(self.regroup(text, now));
            }
        }
        effects
    }

    /// Members of the newest generation.
    pub(super) fn world_size(&self) -> u32 {
        // A generation has no more members than `config.workers`, a u32.
        self.roster.group(Group::Members).len() as u32
    }

    /// Learns from a commit how long steps take, and waits for the next.
    fn note_pace(&mut self, now: Millis) {
        if let Some(last) = self.last_commit.replace(now) {
            self.longest_step = self.longest_step.max(now.since(last));
        }
        self.standstills = 0;
        self.set(Deadline::Progress, now.after(self.progress_timeout()));
    }

    /// Something came of the ranks' work, be it no step.
    pub(super) fn ranks_get_on(&mut self, now: Millis) {
        self.standstills = 0;
        if self.deadlines.runs(&Deadline::Progress) {
            self.set(Deadline::Progress, now.after(self.progress_timeout()));
        }
    }

    /// How long ranks may not get on before somebody is taken to hang.
    pub(super) fn progress_timeout(&self) -> Millis {
        self.config
            .timeouts
            .progress
            .max(Millis(self.longest_step.0.saturating_mul(10)))
    }

    /// After `steps_done` steps: training goes on, or an evaluation is due.
    pub(super) fn note_place(&mut self, steps_done: u64) {
        let due = self.await_evaluation(steps_done).map(|due| due.epoch);
        if matches!(self.phase, Phase::Training | Phase::Evaluating { .. }) {
            self.phase = match due {
                Some(epoch) => Phase::Evaluating {
                    step: steps_done,
                    epoch,
                },
                None => Phase::Training,
            };
        }
    }

    /// The evaluation of the state after `steps_done` steps, unless none is due or it has its figures. What survivors of a
    /// lost generation have scored stays.
    fn await_evaluation(&mut self, steps_done: u64) -> Option<&mut Evaluation> {
        let epoch = self.plan.evaluated_epoch(steps_done)?;
        if self.evaluated.contains(&steps_done) {
            return None;
        }
        let nothing_yet = Evaluation {
            epoch,
            scored: 0,
            samples: self.plan.shape().evaluation_rows(),
        };
        Some(self.evaluations.entry(steps_done).or_insert(nothing_yet))
    }

    /// Scores come by a call of their own: they may be heard before the commit of the step that they are of. A run that
    /// is ending awaits no further evaluation.
    pub(super) fn on_scored(&mut self, step: u64, scored: u32, samples: u32, now: Millis) {
        self.ranks_get_on(now);
        let awaited = if self.is_ending() {
            self.evaluations.get_mut(&step)
        } else {
            self.await_evaluation(step)
        };
        if let Some(evaluation) = awaited {
            (evaluation.scored, evaluation.samples) = (scored, samples);
        }
    }

    pub(super) fn on_evaluated(&mut self, step: u64, problem: Option<&str>) -> Vec<Effect> {
        self.evaluations.remove(&step);
        self.evaluated.insert(step);
        if self.evaluations.is_empty() {
            self.deadlines.remove(&Deadline::Evaluation);
        }
        if matches!(self.phase, Phase::Evaluating { step: under_way, .. } if under_way == step) {
            self.phase = Phase::Training;
        }
        match problem {
            Some(problem) => {
                vec![Effect::Warn {
                    text: format!(
                        "the evaluation after {} has no figures: {problem}",
                        steps(step)
                    ),
                }]
            }
            None => Vec::new(),
        }
    }
}
