//! From the coordinator's plan to tensors on the device: asks the loader for what is planned as soon as it is known, so
//! that the next batches are decoded while the device works.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use data::loader::{Loader, Purpose, Request};
use nccl_rs::SideStream;
use proto::v1::{self, plan_item::Item};
use tch::Device;

use super::batch::{DeviceBatch, Normaliser};
use crate::error::WorkerError;
use crate::rows::{RowBatch, Rows};
use crate::session::Inbox;

/// The plan in order, and its batches.
#[derive(Debug)]
pub(crate) struct Feed {
    inbox: Arc<Inbox>,
    loader: Loader,
    normaliser: Normaliser,
    /// For the copies to a device; on the CPU there are none.
    uploads: SideStream,
    /// The next batch, which went to the device ahead of its turn, or why there is none.
    ahead: Option<Result<DeviceBatch, WorkerError>>,
    items: VecDeque<Item>,
    /// What was asked of the loader and not handed out: the samples of each micro-batch of a pass.
    asked: VecDeque<Vec<Vec<u32>>>,
    /// Validation batches have this size; it does not matter to the scores.
    evaluation_batch: usize,
    rows: Rows,
    /// What this rank has done already of one step, see [`Feed::holds`].
    done: (u64, Vec<v1::MicroBatch>),
    cutting: Cutting,
    /// Whether the next pass is the first of a step.
    first: bool,
    waited: Duration,
}

impl Feed {
    /// A feed without a plan yet.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn new(
        inbox: Arc<Inbox>,
        loader: Loader,
        normaliser: Normaliser,
        evaluation_batch: usize,
        rows: Rows,
        together: usize,
    ) -> Result<Self, tch::TchError> {
        Ok(Self {
            inbox,
            loader,
            uploads: SideStream::new(normaliser.device())?,
            ahead: None,
            normaliser,
            items: VecDeque::new(),
            asked: VecDeque::new(),
            evaluation_batch: evaluation_batch.max(1),
            rows,
            done: (0, Vec::new()),
            cutting: Cutting { parts: 1, together },
            first: false,
            waited: Duration::ZERO,
        })
    }

    /// Forgets the plan and what was decoded for it: another generation begins, which cuts micro-batches into so many
    /// parts.
    pub(crate) fn begin(&mut self, parts: u32) {
        self.loader.clear();
        self.ahead = None;
        self.items.clear();
        self.asked.clear();
        self.done = (0, Vec::new());
        self.first = false;
        self.cutting.parts = parts.max(1) as usize;
    }

    /// Gives up that several micro-batches go through the model together; says how many did.
    pub(crate) fn one_by_one(&mut self) -> usize {
        let before = self.cutting.widest();
        self.cutting.together = 1;
        before
    }

    /// In `step` this rank need not do these micro-batches, if its part of the step begins with them.
    pub(crate) fn holds(&mut self, step: u64, done: &[v1::MicroBatch]) {
        self.done = (step, done.to_vec());
    }

    /// How many of its micro-batches this rank need not do.
    pub(crate) fn done(&self, plan: &v1::StepPlan) -> usize {
        let (step, done) = &self.done;
        if *step == plan.step && plan.micro_batches.starts_with(done) {
            return done.len();
        }
        0
    }

    /// How many times a step still goes forward and backward.
    pub(crate) fn passes(&self, plan: &v1::StepPlan) -> usize {
        self.cutting.passes(self.left(plan)).len()
    }

    /// The micro-batches that are still to be done.
    fn left<'a>(&self, plan: &'a v1::StepPlan) -> &'a [v1::MicroBatch] {
        plan.micro_batches.get(self.done(plan)..).unwrap_or(&[])
    }

    /// The next item of the plan; waits for the coordinator where none is known. A step that is known is handed out even if
    /// the generation is over, see [`Inbox::lets_begin_step`].
    ///
    /// # Errors
    /// When the session ends.
    pub(crate) fn next(&mut self) -> Result<Item, WorkerError> {
        let step_is_next = matches!(self.items.front(), Some(Item::Step(_)));
        if step_is_next && self.inbox.is_over() {
            self.inbox.lets_begin_step()?;
        } else {
            self.collect(false)?;
        }
        while self.items.is_empty() {
            self.collect(true)?;
        }
        // The loop above ends with an item.
        let item = self.items.pop_front();
        let item = item.unwrap_or(Item::Finish(v1::FinishPlan {}));
        self.first = matches!(item, Item::Step(_));
        Ok(item)
    }

    /// The next batch in the plan's order. Waits for the decoder, or decodes where it has no threads; that time is counted.
    ///
    /// # Errors
    /// A picture that cannot be read, by file and image id; that the generation is over.
    pub(crate) fn batch(&mut self, step: u64) -> Result<DeviceBatch, WorkerError> {
        if std::mem::take(&mut self.first) {
            self.inbox.lets_begin_step()?;
        } else {
            self.inbox.goes_on()?;
        }
        let torch = |source| WorkerError::Torch { step, source };
        if let Some(ahead) = self.ahead.take() {
            let batch = ahead?;
            self.uploads
                .hand_over(&[&batch.images, &batch.targets])
                .map_err(torch)?;
            return Ok(batch);
        }
        let started = Instant::now();
        let batch = self.loader.next();
        self.waited += started.elapsed();
        let nothing = || WorkerError::Config(format!("step {step}: no batch was requested"));
        let (batch, asked) = batch.zip(self.asked.pop_front()).ok_or_else(nothing)?;
        self.normaliser.batch(batch?, &asked).map_err(torch)
    }

    /// Sends the next batch to the device if it is decoded, on a stream of its own: beside what the device still has to
    /// do. On the CPU there is nothing to send.
    pub(crate) fn upload_next(&mut self, step: u64) {
        if !self.uploads.is_there() || self.ahead.is_some() {
            return;
        }
        let Some((decoded, asked)) = self.loader.try_next().zip(self.asked.front()) else {
            return;
        };
        let torch = |source| WorkerError::Torch { step, source };
        let normaliser = &self.normaliser;
        let upload = |batch| {
            let batch = self.uploads.run(|| normaliser.batch(batch, asked));
            batch.and_then(|batch| batch).map_err(torch)
        };
        // What is wrong with it is said in its turn.
        self.ahead = Some(decoded.map_err(WorkerError::from).and_then(upload));
        self.asked.pop_front();
    }

    /// Time spent waiting for the decoder, or decoding where it has no threads, since the last call.
    pub(crate) fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    /// The batches in which these rows of an evaluation come.
    pub(crate) fn evaluation_batches(&self, rows: &[u32]) -> Vec<RowBatch> {
        self.rows.batches(rows, self.evaluation_size())
    }

    fn evaluation_size(&self) -> usize {
        (self.evaluation_batch / self.cutting.parts).max(1)
    }

    /// Asks the loader for a pass of these micro-batches.
    fn ask(&mut self, epoch: u32, purpose: Purpose, micro_batches: Vec<Vec<u32>>) {
        self.loader.push(Request {
            tag: 0,
            epoch: u64::from(epoch),
            purpose,
            samples: micro_batches.concat(),
        });
        self.asked.push_back(micro_batches);
    }

    fn collect(&mut self, block: bool) -> Result<(), WorkerError> {
        for item in self
            .inbox
            .items(block)?
            .into_iter()
            .filter_map(|item| item.item)
        {
            match &item {
                Item::Step(step) => {
                    for pass in self.cutting.passes(self.left(step)) {
                        let samples = pass.into_iter().map(<[u32]>::to_vec).collect();
                        self.ask(step.epoch, Purpose::Train, samples);
                    }
                }
                Item::Evaluation(evaluation) => {
                    for batch in self.evaluation_batches(&evaluation.sample_ids) {
                        let purpose = batch.purpose();
                        self.ask(evaluation.epoch, purpose, vec![batch.samples]);
                    }
                }
                Item::Snapshot(_) | Item::Finish(_) => {}
            }
            self.items.push_back(item);
        }
        Ok(())
    }
}

/// How a rank's micro-batches become passes through the model.
#[derive(Debug, Clone, Copy)]
struct Cutting {
    /// Into how many parts a micro-batch is cut, because a device has no room for a whole one.
    parts: usize,
    /// How many whole ones go through the model together, each normalised by itself.
    together: usize,
}

impl Cutting {
    /// How many micro-batches a pass has at most.
    fn widest(self) -> usize {
        if self.parts > 1 {
            1
        } else {
            self.together.max(1)
        }
    }

    /// The passes of these micro-batches, and of each the samples that are normalised together.
    fn passes(self, micro_batches: &[v1::MicroBatch]) -> Vec<Vec<&[u32]>> {
        if self.parts > 1 {
            return micro_batches
                .iter()
                .flat_map(|batch| cut(&batch.sample_ids, self.parts))
                .map(|part| vec![part])
                .collect();
        }
        micro_batches
            .chunks(self.widest())
            .map(|pass| pass.iter().map(|batch| &*batch.sample_ids).collect())
            .collect()
    }
}

/// How many micro-batches of so many pictures of `size` pixels a side go through the model together, where nothing is said.
///
/// On the CPU a pass of few small pictures takes its time for reading and turning the weights, once a pass. With so many
/// that it does not, or that their memory counts, they go one by one; and so they do on a device, which is busy with one.
pub(crate) fn together(device: Device, micro_batch: u32, size: u32) -> usize {
    /// Pixels of 64 pictures of 64 x 64: the activations of one picture of 512 x 512.
    const MOST_PIXELS: u64 = 64 * 64 * 64;
    if device != Device::Cpu {
        return 1;
    }
    let pixels = u64::from(micro_batch.max(1)) * u64::from(size.max(1)).pow(2);
    usize::try_from(MOST_PIXELS / pixels).unwrap_or(1).max(1)
}

/// Cuts a micro-batch into so many parts, as evenly as they go and none of a single sample, of which batch normalisation
/// has no statistics.
fn cut(samples: &[u32], parts: usize) -> impl Iterator<Item = &[u32]> {
    let parts = parts.min(samples.len() / 2).max(1);
    (0..parts).map(move |part| {
        let at = |part: usize| samples.len() * part / parts;
        &samples[at(part)..at(part + 1)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_hold_every_micro_batch_once_and_in_order() {
        let micro_batches: Vec<v1::MicroBatch> = (0..7u32)
            .map(|index| v1::MicroBatch {
                index,
                sample_ids: (index * 4..index * 4 + 4).collect(),
            })
            .collect();
        let passes = |parts, together| Cutting { parts, together }.passes(&micro_batches);
        for (parts, together, expected) in [(1, 1, 7), (1, 3, 3), (1, 7, 1), (1, 9, 1), (2, 3, 14)]
        {
            let passes = passes(parts, together);
            assert_eq!(passes.len(), expected, "{parts} {together}");
            let samples: Vec<u32> = passes
                .iter()
                .flatten()
                .copied()
                .flatten()
                .copied()
                .collect();
            assert_eq!(samples, (0..28).collect::<Vec<u32>>());
        }
        // What is left after whole passes is cut as it was before.
        let rest = Cutting {
            parts: 1,
            together: 3,
        }
        .passes(&micro_batches[3..]);
        assert_eq!(rest, passes(1, 3)[1..]);
    }

    #[test]
    fn only_small_pictures_on_a_cpu_go_together() {
        let on_cpu = |micro_batch, size| together(Device::Cpu, micro_batch, size);
        assert_eq!((on_cpu(4, 64), on_cpu(16, 64), on_cpu(64, 64)), (16, 4, 1));
        assert_eq!((on_cpu(4, 128), on_cpu(4, 224), on_cpu(64, 448)), (4, 1, 1));
        assert_eq!(together(Device::Cuda(0), 4, 64), 1);
    }

    #[test]
    fn parts_hold_every_sample_once_and_at_least_two() {
        for size in 1..40usize {
            let samples: Vec<u32> = (0..size as u32).collect();
            for parts in 1..20 {
                let cut: Vec<_> = cut(&samples, parts).collect();
                assert_eq!(cut.concat(), samples);
                assert!(
                    cut.len() == 1 || cut.iter().all(|part| part.len() >= 2),
                    "{cut:?}"
                );
                assert!(cut.len() <= parts);
            }
        }
    }
}
