//! The one view of a run that gRPC and the terminal share.

use domain::membership::{Member, Process, Roster, Session, WorkerId};
use domain::run::{EndKind, Millis, Phase, State};
use proto::v1::{self, Activity, Deadline, Heartbeat, Join, Status, WorkerStatus};

/// Bounds on what a status repeats of strings from outside, in bytes, so that it stays below the message limit.
const TEXT_LIMIT: usize = 256;
/// Workers listed in one status; more are counted.
const WORKERS_LIMIT: usize = 512;

/// What a status shows beyond the domain's state.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) run_id: String,
    pub(crate) run_dir: String,
    pub(crate) loss: f64,
    pub(crate) images_per_second: f64,
    pub(crate) data_wait_fraction: f64,
    pub(crate) last_map: Option<f64>,
    pub(crate) best: Option<(f64, u32)>,
    pub(crate) last_checkpoint: String,
    pub(crate) best_checkpoint: String,
    pub(crate) warnings: Vec<String>,
}

/// What a worker said of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Introduced {
    pub(crate) join: Join,
    pub(crate) heartbeat: Option<Heartbeat>,
}

/// The status at `now`. `introduced` finds what a worker said of itself.
pub(crate) fn view<'a>(
    state: &State,
    shown: &Shown,
    introduced: impl Fn(&WorkerId) -> Option<&'a Introduced>,
    now: Millis,
) -> Status {
    let config = state.config();
    let exit_code = match state.phase() {
        Phase::Over(ending) => u32::from(ending.exit_code),
        _ => 0,
    };
    let evaluation = state.evaluation();
    Status {
        run_id: shown.run_id.clone(),
        run_dir: shown.run_dir.clone(),
        phase: phase(state.phase()).into(),
        reason: state.reason().to_string(),
        generation: state.generation(),
        workers_wanted: config.workers,
        step: state.steps_done(),
        total_steps: state.total_steps(),
        epoch: state.epoch_shown(),
        epochs: config.shape.epochs,
        loss: shown.loss,
        images_per_second: shown.images_per_second,
        data_wait_fraction: shown.data_wait_fraction,
        last_map: shown.last_map,
        best_map: shown.best.map(|(map, _)| map),
        best_epoch: shown.best.map_or(0, |(_, epoch)| epoch + 1),
        last_checkpoint: shown.last_checkpoint.clone(),
        best_checkpoint: shown.best_checkpoint.clone(),
        workers: state
            .roster()
            .iter()
            .take(WORKERS_LIMIT)
            .map(|known| worker_view(state, known, introduced(known.0), now))
            .collect(),
        workers_joined: state.roster().joined(),
        workers_unlisted: state.roster().len().saturating_sub(WORKERS_LIMIT) as u32,
        deadlines: deadlines(state, now),
        warnings: shown.warnings.clone(),
        exit_code,
        samples_scored: evaluation.map_or(0, |evaluation| evaluation.scored.into()),
        samples_to_score: evaluation.map_or(0, |evaluation| evaluation.samples.into()),
    }
}

/// All deadlines but heartbeats'; where thousands of workers have one each, the earliest of them.
fn deadlines(state: &State, now: Millis) -> Vec<Deadline> {
    let mut running: Vec<_> = state.deadlines_but_heartbeats().collect();
    if running.len() > WORKERS_LIMIT {
        running.sort_by_key(|(_, at)| *at);
        running.truncate(WORKERS_LIMIT);
    }
    let shown = running.into_iter().map(|(deadline, at)| Deadline {
        name: deadline.to_string(),
        remaining_millis: at.since(now).0,
    });
    shown.collect()
}

/// Whether a phase is one that nothing follows.
#[must_use]
pub fn is_final(phase: v1::Phase) -> bool {
    matches!(
        phase,
        v1::Phase::Finished | v1::Phase::Stopped | v1::Phase::Failed
    )
}

fn phase(phase: &Phase) -> v1::Phase {
    match phase {
        Phase::Waiting => v1::Phase::Waiting,
        Phase::Regrouping { .. } => v1::Phase::Regrouping,
        Phase::Forming => v1::Phase::Forming,
        Phase::Training => v1::Phase::Training,
        Phase::Evaluating { .. } => v1::Phase::Evaluating,
        Phase::Stopping { .. } | Phase::Ending { .. } => v1::Phase::Stopping,
        Phase::Over(ending) => match ending.kind {
            EndKind::Finished => v1::Phase::Finished,
            EndKind::Stopped => v1::Phase::Stopped,
            EndKind::Failed => v1::Phase::Failed,
        },
    }
}

fn worker_view(
    state: &State,
    (worker, member): (&WorkerId, &Member),
    introduced: Option<&Introduced>,
    now: Millis,
) -> WorkerStatus {
    let heartbeat = introduced.and_then(|introduced| introduced.heartbeat.as_ref());
    let join = introduced.map(|introduced| &introduced.join);
    let text = |of: fn(&Join) -> &String| join.map(|join| cut(of(join))).unwrap_or_default();
    WorkerStatus {
        worker_id: cut(worker.as_str()),
        host: text(|join| &join.host),
        pid: join.map_or(0, |join| join.pid),
        device: text(|join| &join.device),
        threads: join.map_or(0, |join| join.threads),
        rank: member.rank,
        activity: activity(state.roster(), member, heartbeat),
        step: member.next_step,
        collective: heartbeat.map(collective).unwrap_or_default(),
        heartbeat_age_millis: match member.session {
            Session::Never => 0,
            _ => now.since(member.heard).0,
        },
        resident_bytes: heartbeat.map_or(0, |heartbeat| heartbeat.resident_bytes),
        forward_nanos_per_sample: member.pace.unwrap_or(0),
        heartbeat_remaining_millis: state.heartbeat_due(worker).map(|at| at.since(now).0),
    }
}

/// What a worker is doing, in a word or two.
fn activity(roster: &Roster, member: &Member, heartbeat: Option<&Heartbeat>) -> String {
    match (&member.process, member.session) {
        (Process::Ended(end), _) => end.to_string(),
        (_, Session::Never) => "starting".to_owned(),
        (_, Session::Lost) => "gone".to_owned(),
        _ if member.draining => "draining".to_owned(),
        _ if roster.is_spare(member) => "spare".to_owned(),
        (_, Session::Open) => {
            match heartbeat.map_or(Activity::Setup, |heartbeat| heartbeat.activity()) {
                Activity::Unspecified | Activity::Setup => "setting up",
                Activity::Waiting => "waiting",
                Activity::Training => "training",
                Activity::Evaluating => "evaluating",
                Activity::Snapshot => "handing over a checkpoint",
                Activity::Leaving => "leaving",
            }
            .to_owned()
        }
    }
}

fn collective(heartbeat: &Heartbeat) -> String {
    match (heartbeat.collective.as_str(), heartbeat.in_collective) {
        ("", _) => String::new(),
        (name, true) => format!("in {}", cut(name)),
        (name, false) => format!("left {}", cut(name)),
    }
}

/// The beginning of a string from outside.
pub(crate) fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use domain::run::{Budgets, Config, Timeouts, World};
    use domain::run_plan::RunShape;
    use prost::Message as _;

    use super::*;

    #[test]
    fn the_status_of_ten_thousand_workers_lists_some_counts_all_and_is_a_small_message() {
        let config = Config {
            balance: false,
            halve_when_out_of_memory: false,
            workers: 10_000,
            min_workers: 1,
            world: World::Elastic,
            budgets: Budgets {
                crash: 1,
                hang: 1,
                preemption: 1,
                memory: 0,
            },
            local: true,
            shape: RunShape {
                seed: 1,
                samples: 8,
                val_samples: 4,
                further_rows: 0,
                early_stopping: None,
                global_batch: 4,
                micro_batch: 2,
                epochs: 1,
                evaluate_every_epochs: 1,
                snapshot_every_steps: None,
                snapshot_every_epochs: None,
            },
            begins_at_step: 0,
            from_checkpoint: false,
            evaluate_first: false,
            last_generation: 0,
            adopted: None,
            left_waiting: false,
            losses: Vec::new(),
            forward_parts: 0,
            maps: Default::default(),
            stop_after: None,
            timeouts: Timeouts::from_fault_timeout(Millis(5000)),
        };
        let state = State::new(config).unwrap();
        let long = Introduced {
            join: Join {
                host: "h".repeat(1000),
                device: "d".repeat(1000),
                ..Join::default()
            },
            heartbeat: Some(Heartbeat {
                collective: "c".repeat(10_000),
                ..Heartbeat::default()
            }),
        };
        let status = view(&state, &Shown::default(), |_| Some(&long), Millis(0));
        assert_eq!(status.workers.len(), WORKERS_LIMIT);
        assert_eq!(status.workers_unlisted as usize, 10_000 - WORKERS_LIMIT);
        assert!(status.encoded_len() < proto::MAX_MESSAGE_BYTES / 2);
    }
}
