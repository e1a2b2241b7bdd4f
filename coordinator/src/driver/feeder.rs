//! Hands out every rank's plan in order, an epoch ahead of what it has committed.

use std::collections::BTreeMap;

use domain::assignment::Assignment;
use domain::plan::{EpochPlan, RankStep, share, share_of_evaluation};
use domain::run::Opening;
use domain::run_plan::{Item, RunPlan};
use proto::v1::{
    self, EvaluationPlan, FinishPlan, Plan, PlanItem, SnapshotPlan, StepPlan, plan_item,
};

/// A message ends after this many steps, or once it holds about this many bytes.
const STEPS_PER_MESSAGE: u64 = 64;
const BYTES_PER_MESSAGE: usize = 256 * 1024;
/// Sample ids in one evaluation item: 5 bytes each at most.
const EVALUATION_IDS: usize = 32 * 1024;

/// What every rank has been told, and what comes next.
#[derive(Debug)]
pub(crate) struct Feeder {
    plan: RunPlan,
    generation: u64,
    assignment: Assignment,
    begins_at_step: u64,
    opening: Opening,
    /// Samples that the opening's evaluation scores: those that no earlier generation has.
    unscored: Vec<u32>,
    stop_after: Option<u64>,
    /// By rank: the next item to hand out, `None` once everything was.
    next: Vec<Option<Item>>,
    /// How many ranks are at each epoch, of those that have something left to hand out.
    ranks_at: BTreeMap<u32, u32>,
    /// The permutations in use; at most those of two or three epochs.
    epochs: BTreeMap<u32, EpochPlan>,
}

impl Feeder {
    /// For a generation that hands out steps by `assignment` and begins at `begins_at_step`; `unscored` is what its opening's
    /// evaluation scores.
    pub(crate) fn new(
        plan: RunPlan,
        (generation, assignment): (u64, Assignment),
        begins_at_step: u64,
        opening: Opening,
        unscored: Vec<u32>,
        stop_after: Option<u64>,
    ) -> Self {
        let mut feeder = Self {
            plan,
            generation,
            assignment,
            begins_at_step,
            opening,
            unscored,
            stop_after,
            next: Vec::new(),
            ranks_at: BTreeMap::new(),
            epochs: BTreeMap::new(),
        };
        let evaluated = plan.evaluated_epoch(begins_at_step);
        let first = match evaluated.filter(|_| opening.evaluate) {
            Some(epoch) => Item::Evaluate {
                steps_done: begins_at_step,
                epoch,
            },
            None => feeder.after_opening_evaluation(),
        };
        let world_size = feeder.world_size();
        feeder.next = (0..world_size).map(|_| Some(first)).collect();
        if let Some(epoch) = feeder.epoch_at(0) {
            feeder.ranks_at.insert(epoch, world_size);
        }
        feeder
    }

    fn world_size(&self) -> u32 {
        self.assignment.world_size()
    }

    fn after_opening_evaluation(&self) -> Item {
        if self.opening.snapshot {
            let steps_done = self.begins_at_step;
            return Item::Snapshot { steps_done };
        }
        self.after_opening()
    }

    fn after_opening(&self) -> Item {
        let stop = |stop_after: u64| stop_after <= self.begins_at_step;
        if self.opening.finish || self.stop_after.is_some_and(stop) {
            return Item::Finish;
        }
        self.plan.item_at(self.begins_at_step)
    }

    /// What `rank` is to be told now that it has committed every step before `next_step`. Empty while it holds enough.
    pub(crate) fn top_up(&mut self, rank: u32, next_step: u64) -> Vec<Plan> {
        let ahead = u64::from(self.plan.steps_per_epoch());
        let mut plans = Vec::new();
        // Nothing is handed out before at least a message's worth of steps is missing.
        if self
            .place(rank)
            .is_none_or(|place| place >= next_step + ahead)
        {
            return plans;
        }
        let until = next_step + ahead + STEPS_PER_MESSAGE;
        while self.place(rank).is_some_and(|place| place < until) {
            let items = self.message(rank, until);
            plans.push(Plan {
                generation: self.generation,
                items,
            });
        }
        self.forget_old_epochs();
        plans
    }

    /// The steps done before the next item of a rank.
    fn place(&self, rank: u32) -> Option<u64> {
        match self.next.get(rank as usize).copied().flatten()? {
            Item::Step(step) => Some(step),
            Item::Evaluate { steps_done, .. } | Item::Snapshot { steps_done } => Some(steps_done),
            // The end is handed out with the last steps.
            Item::Finish => Some(0),
        }
    }

    /// The epoch of the next item of a rank.
    fn epoch_at(&self, rank: u32) -> Option<u32> {
        self.place(rank).map(|step| self.plan.epoch_of(step))
    }

    /// `item` is what comes next for a rank.
    fn go_to(&mut self, rank: u32, item: Option<Item>) {
        let before = self.epoch_at(rank);
        if let Some(next) = self.next.get_mut(rank as usize) {
            *next = item;
        }
        let after = self.epoch_at(rank);
        if before == after {
            return;
        }
        if let Some(epoch) = after {
            *self.ranks_at.entry(epoch).or_default() += 1;
        }
        if let Some(epoch) = before
            && let Some(ranks) = self.ranks_at.get_mut(&epoch)
        {
            *ranks -= 1;
            if *ranks == 0 {
                self.ranks_at.remove(&epoch);
            }
        }
    }

    /// The items of one message: always at least one.
    fn message(&mut self, rank: u32, until: u64) -> Vec<PlanItem> {
        let mut items = Vec::new();
        let (mut bytes, mut steps) = (0, 0);
        while let Some(item) = self.next.get(rank as usize).copied().flatten() {
            match item {
                Item::Step(step) => {
                    if step >= until || steps == STEPS_PER_MESSAGE {
                        break;
                    }
                    let planned = self.rank_step(step, rank);
                    bytes += 24 + planned.iter().map(size_of_step).sum::<usize>();
                    items.extend(planned.map(|planned| step_item(&planned)));
                    steps += 1;
                }
                Item::Evaluate { steps_done, epoch } => {
                    let ids = self.evaluation_share(steps_done, rank);
                    if !items.is_empty() && bytes + 5 * ids.len() > BYTES_PER_MESSAGE {
                        break;
                    }
                    bytes += 5 * ids.len();
                    items.extend(evaluation_items(steps_done, epoch, &ids));
                }
                Item::Snapshot { steps_done } => {
                    items.push(item_of(plan_item::Item::Snapshot(SnapshotPlan {
                        step: steps_done,
                    })));
                }
                Item::Finish => items.push(item_of(plan_item::Item::Finish(FinishPlan {}))),
            }
            self.go_to(rank, self.following(item));
            if bytes >= BYTES_PER_MESSAGE {
                break;
            }
        }
        items
    }

    /// The item after `item`, with the run cut off at `stop_after`.
    fn following(&self, item: Item) -> Option<Item> {
        let cut = self
            .stop_after
            .filter(|stop| *stop < self.plan.total_steps());
        match item {
            Item::Step(step) if Some(step + 1) == cut => {
                let steps_done = step + 1;
                match self.plan.evaluated_epoch(steps_done) {
                    Some(epoch) => Some(Item::Evaluate { steps_done, epoch }),
                    None => Some(Item::Snapshot { steps_done }),
                }
            }
            Item::Evaluate { steps_done, .. } if steps_done == self.begins_at_step => {
                Some(self.after_opening_evaluation())
            }
            Item::Snapshot { steps_done } if steps_done == self.begins_at_step => {
                Some(self.after_opening())
            }
            Item::Evaluate { steps_done, .. } if Some(steps_done) == cut => {
                Some(Item::Snapshot { steps_done })
            }
            Item::Snapshot { steps_done } if Some(steps_done) == cut => Some(Item::Finish),
            item => self.plan.next(item),
        }
    }

    /// The samples that `rank` scores of the state after `steps_done` steps.
    fn evaluation_share(&self, steps_done: u64, rank: u32) -> Vec<u32> {
        if steps_done == self.begins_at_step {
            let mine = share(self.unscored.len(), self.world_size(), rank);
            return self.unscored[mine].to_vec();
        }
        share_of_evaluation(self.plan.shape().evaluation_rows(), self.world_size(), rank).collect()
    }

    fn rank_step(&mut self, step: u64, rank: u32) -> Option<RankStep> {
        let epoch = self.plan.epoch_of(step);
        let plan = &self.plan;
        let epoch_plan = self
            .epochs
            .entry(epoch)
            .or_insert_with(|| plan.epoch_plan(epoch));
        // The feeder's own ranks and the plan's own steps are never out of range.
        epoch_plan
            .rank_steps(step..step + 1, rank, &self.assignment)
            .ok()?
            .pop()
    }

    /// Drops the permutations that every rank has been handed to the end.
    fn forget_old_epochs(&mut self) {
        let slowest = self.ranks_at.keys().next().copied();
        let epoch = slowest.unwrap_or(u32::MAX);
        if self
            .epochs
            .keys()
            .next()
            .is_some_and(|known| *known < epoch)
        {
            self.epochs.retain(|known, _| *known >= epoch);
        }
    }
}

fn size_of_step(step: &RankStep) -> usize {
    step.micro_batches
        .iter()
        .map(|micro_batch| 16 + 5 * micro_batch.sample_ids.len())
        .sum()
}

fn item_of(item: plan_item::Item) -> PlanItem {
    PlanItem { item: Some(item) }
}

fn step_item(step: &RankStep) -> PlanItem {
    let micro_batches = step
        .micro_batches
        .iter()
        .map(|micro_batch| v1::MicroBatch {
            index: micro_batch.index,
            sample_ids: micro_batch.sample_ids.clone(),
        })
        .collect();
    item_of(plan_item::Item::Step(StepPlan {
        step: step.step,
        epoch: step.epoch,
        samples_in_step: step.samples_in_step,
        micro_batches,
    }))
}

/// A rank's share, in pieces; a rank without a share gets one empty piece, so that it knows of the evaluation.
fn evaluation_items(step: u64, epoch: u32, ids: &[u32]) -> Vec<PlanItem> {
    let mut pieces: Vec<&[u32]> = ids.chunks(EVALUATION_IDS).collect();
    if pieces.is_empty() {
        pieces.push(&[]);
    }
    let count = pieces.len();
    pieces
        .into_iter()
        .enumerate()
        .map(|(piece, ids)| {
            let sample_ids = ids.to_vec();
            let last = piece + 1 == count;
            item_of(plan_item::Item::Evaluation(EvaluationPlan {
                step,
                epoch,
                sample_ids,
                last,
            }))
        })
        .collect()
}

#[cfg(test)]
mod tests;
