//! What a run has on disk, opened, and what follows from it for where the run goes on.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use domain::ledger::Ledger;
use domain::run::{Adopted, BUDGET_WINDOW, Config, LossClass, Millis, Timeouts};
use domain::run_plan::RunPlan;

use super::{Launch, RunError, RunSetup};
use crate::checkpoint::{Checkpoints, Entry};
use crate::driver::unix_millis;
use crate::history::History;
use crate::store::{Loss, Resume, Store};

/// What is on disk, opened.
pub(super) struct Opened {
    pub(super) config: Config,
    pub(super) checkpoints: Checkpoints,
    /// Those that are in place.
    pub(super) kept: Vec<Entry>,
    pub(super) store: Store,
    pub(super) ledger: Ledger,
    pub(super) history: History,
    pub(super) scores: BTreeMap<(u64, u32), Option<Vec<f32>>>,
}

pub(super) async fn open(setup: &RunSetup) -> Result<Opened, RunError> {
    let workers = setup.launch.workers();
    let plan = RunPlan::new(setup.shape, workers)?;
    let begins_at_step = setup.resume.as_ref().map_or(0, |resume| resume.step);
    let resume = if setup.adopt {
        Resume::WithWorkersOr(begins_at_step)
    } else {
        Resume::At(begins_at_step)
    };
    let keep = NonZeroU32::new(setup.keep_checkpoints).unwrap_or(NonZeroU32::MIN);
    let (run_dir, run_id) = (setup.run_dir.clone(), setup.run_id.clone());
    let (checkpoints, kept, store, recorded) = tokio::task::spawn_blocking(move || {
        let checkpoints = Checkpoints::open(run_dir.join("checkpoints"), keep)?;
        let (store, recorded) = Store::open(&run_dir.join("run.redb"), &run_id, resume)?;
        let maps = recorded.evaluations.iter();
        let maps = maps.map(|known| (known.step, known.metrics.average_precision.map));
        checkpoints.catch_up(&maps.collect::<Vec<_>>())?;
        let kept = checkpoints.list()?;
        Ok::<_, RunError>((checkpoints, kept, store, recorded))
    })
    .await
    .map_err(|problem| RunError::Internal(problem.to_string()))??;
    store.shape(setup.shape);
    let steps_per_epoch = u64::from(plan.steps_per_epoch());
    let mut ledger = recorded.ledger;
    let newest_step = recorded.steps.last().map(|point| point.step);
    let history = History::new(recorded.steps, recorded.evaluations, steps_per_epoch);
    let adopted = recorded
        .left_behind
        .then(|| adopt(&mut ledger, newest_step, &history))
        .flatten();
    let evaluate_first =
        plan.evaluated_epoch(begins_at_step).is_some() && !history.is_evaluated(begins_at_step);
    let timeouts = Timeouts {
        grace: setup.grace.into(),
        ..Timeouts::from_fault_timeout(setup.fault_timeout.into())
    };
    let local = matches!(setup.launch, Launch::Local { .. });
    let config = Config {
        workers,
        min_workers: setup.membership.min_workers,
        world: setup.membership.world,
        balance: setup.membership.balance,
        halve_when_out_of_memory: setup.membership.halve_when_out_of_memory,
        budgets: setup.membership.budgets,
        losses: still_counting(&recorded.losses, unix_millis()),
        forward_parts: recorded.forward_parts,
        local,
        shape: setup.shape,
        begins_at_step,
        from_checkpoint: setup.resume.is_some(),
        evaluate_first,
        last_generation: recorded.generation,
        left_waiting: setup.adopt && recorded.lost && adopted.is_none() && local,
        adopted,
        maps: history
            .evaluations()
            .iter()
            .filter_map(|known| Some((known.step, known.metrics.average_precision.map?.to_bits())))
            .collect(),
        stop_after: setup.stop_after,
        timeouts,
    };
    Ok(Opened {
        config,
        checkpoints,
        kept,
        store,
        ledger,
        history,
        scores: recorded.scores,
    })
}

/// The losses that still count, and how long ago each was. One that the wall clock puts into the future was just now.
fn still_counting(losses: &[Loss], now: u64) -> Vec<(LossClass, Millis)> {
    let ages = losses.iter().map(|loss| {
        let age = Millis(now.saturating_sub(loss.unix_millis));
        (loss.class, age)
    });
    ages.filter(|(_, age)| *age < BUDGET_WINDOW).collect()
}

/// What a lost coordinator has left behind, as far as it was recorded.
fn adopt(ledger: &mut Ledger, newest_step: Option<u64>, history: &History) -> Option<Adopted> {
    let number = ledger.current()?.number;
    // Steps are recorded as they come, and the ledger once a second: it may lag behind.
    if let Some(step) = newest_step {
        let _ = ledger.commit_through(number, step);
    }
    let evaluated = history.evaluations().into_iter().map(|known| known.step);
    Adopted::of(ledger, evaluated.collect(), history.usual_step().into())
}
