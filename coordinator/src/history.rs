//! The run's figures so far, as status, history requests and the summary read them.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use proto::v1::{EpochPoint, FurtherPoint, GetHistoryResponse, StepPoint};

use crate::evaluation::Evaluated;

/// Points in one page unless asked otherwise, and at most. A point takes 75 bytes on the wire.
const PAGE: usize = 1000;
const PAGE_LIMIT: usize = 5000;
/// Epochs in one page.
const EPOCHS_LIMIT: usize = 1000;

/// Committed steps and evaluations, in order.
#[derive(Debug, Default)]
pub struct History {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    steps: Vec<StepPoint>,
    evaluations: Vec<Evaluated>,
    /// To tell epochs apart.
    steps_per_epoch: u64,
    /// How often something became void, or an evaluation took another's place.
    rewritten: u64,
}

/// How much of a history someone knows: nothing, by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    rewritten: u64,
    steps: usize,
    evaluations: usize,
}

/// What someone does not know yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct News {
    /// Whether what was known became void: then this is everything.
    pub(crate) from_beginning: bool,
    /// In order.
    pub(crate) steps: Vec<StepPoint>,
    /// In order.
    pub(crate) evaluations: Vec<Evaluated>,
    /// Where it ends.
    pub(crate) place: Place,
}

impl History {
    /// What was recorded before a resume.
    #[must_use]
    pub fn new(steps: Vec<StepPoint>, evaluations: Vec<Evaluated>, steps_per_epoch: u64) -> Self {
        Self {
            inner: RwLock::new(Inner {
                steps,
                evaluations,
                steps_per_epoch: steps_per_epoch.max(1),
                rewritten: 0,
            }),
        }
    }

    /// Adds a committed step.
    pub fn push_step(&self, point: StepPoint) {
        self.inner
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .steps
            .push(point);
    }

    /// Adds an evaluation, in the place of an earlier one of the same step.
    pub fn push_evaluation(&self, evaluated: Evaluated) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let newest = inner.evaluations.last().map(|known| known.step);
        if newest.is_some_and(|newest| newest >= evaluated.step) {
            inner.rewritten += 1;
        }
        inner
            .evaluations
            .retain(|known| known.step != evaluated.step);
        inner.evaluations.push(evaluated);
        inner.evaluations.sort_by_key(|known| known.step);
    }

    /// Forgets the steps from `step` on, and evaluations of states beyond it: they are void.
    pub fn void_from(&self, step: u64) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.rewritten += 1;
        inner.steps.retain(|point| point.step < step);
        inner.evaluations.retain(|known| known.step <= step);
    }

    /// What came after `place`.
    #[must_use]
    pub(crate) fn since(&self, place: Place) -> News {
        let inner = self.read();
        let same = place.rewritten == inner.rewritten;
        let (steps, evaluations) = if same {
            (place.steps, place.evaluations)
        } else {
            (0, 0)
        };
        News {
            from_beginning: !same,
            steps: inner.steps.get(steps..).unwrap_or_default().to_vec(),
            evaluations: inner
                .evaluations
                .get(evaluations..)
                .unwrap_or_default()
                .to_vec(),
            place: Place {
                rewritten: inner.rewritten,
                steps: inner.steps.len(),
                evaluations: inner.evaluations.len(),
            },
        }
    }

    /// From one commit to the next, the median of the newest ones; zero where nothing is known. Times of day may have
    /// jumped, and hours lie between the last commit before a resume and the first after it: the median minds neither.
    #[must_use]
    pub fn usual_step(&self) -> Duration {
        const NEWEST: usize = 32;
        let inner = self.read();
        let newest = inner.steps.len().saturating_sub(NEWEST);
        let times = || inner.steps[newest..].iter().map(|point| point.unix_millis);
        let mut between: Vec<u64> = times()
            .zip(times().skip(1))
            .map(|(one, next)| next.saturating_sub(one))
            .collect();
        between.sort_unstable();
        let median = between.get(between.len() / 2);
        Duration::from_millis(median.copied().unwrap_or(0))
    }

    /// All evaluations.
    #[must_use]
    pub fn evaluations(&self) -> Vec<Evaluated> {
        self.read().evaluations.clone()
    }

    /// (steps before it, mAP) of each evaluation.
    #[must_use]
    pub fn steps_and_maps(&self) -> Vec<(u64, Option<f64>)> {
        let inner = self.read();
        let evaluations = inner.evaluations.iter();
        evaluations
            .map(|known| (known.step, known.metrics.average_precision.map))
            .collect()
    }

    /// Whether the state after `step` steps was evaluated.
    #[must_use]
    pub fn is_evaluated(&self, step: u64) -> bool {
        self.read()
            .evaluations
            .iter()
            .any(|known| known.step == step)
    }

    /// The last mAP, and the best with its epoch from 0; of equals the earliest is best.
    #[must_use]
    pub fn maps(&self) -> (Option<f64>, Option<(f64, u32)>) {
        let inner = self.read();
        let maps = || {
            inner.evaluations.iter().filter_map(|evaluated| {
                Some((evaluated.metrics.average_precision.map?, evaluated.epoch))
            })
        };
        let best = maps().fold(None, |best: Option<(f64, u32)>, candidate| match best {
            Some(best) if best.0 >= candidate.0 => Some(best),
            _ => Some(candidate),
        });
        (maps().next_back().map(|(map, _)| map), best)
    }

    /// The mean loss of each epoch whose every step is known: (epoch from 0, loss).
    #[must_use]
    pub fn epoch_losses(&self) -> Vec<(u32, f64)> {
        self.read().epoch_losses()
    }

    /// A page of points from `from_step` on.
    #[must_use]
    pub fn page(&self, from_step: u64, page_size: u32) -> GetHistoryResponse {
        let inner = self.read();
        let size = match page_size as usize {
            0 => PAGE,
            size => size.min(PAGE_LIMIT),
        };
        let first = inner.steps.partition_point(|point| point.step < from_step);
        let steps: Vec<_> = inner.steps[first..].iter().take(size).copied().collect();
        let next_step = inner
            .steps
            .get(first + steps.len())
            .map_or(0, |point| point.step);
        let losses = inner.epoch_losses();
        let epochs = inner
            .evaluations
            .iter()
            .filter(|evaluated| evaluated.step > from_step || from_step == 0)
            .filter(|evaluated| next_step == 0 || evaluated.step <= next_step)
            .take(EPOCHS_LIMIT)
            .map(|evaluated| EpochPoint {
                epoch: evaluated.epoch + 1,
                step: evaluated.step,
                map: evaluated.metrics.average_precision.map,
                further: evaluated
                    .metrics
                    .further
                    .iter()
                    .map(|further| FurtherPoint {
                        figure: further.figure.name().to_owned(),
                        map: further.map,
                        samples: further.samples,
                    })
                    .collect(),
                mean_loss: losses
                    .iter()
                    .find(|(epoch, _)| *epoch == evaluated.epoch)
                    .map_or(0.0, |(_, loss)| *loss),
            })
            .collect();
        GetHistoryResponse {
            steps,
            epochs,
            next_step,
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // A panic while holding the lock leaves whole points behind: vectors of plain figures.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn epoch_losses(&self) -> Vec<(u32, f64)> {
        let mut losses = Vec::new();
        for chunk in self
            .steps
            .chunk_by(|a, b| a.step / self.steps_per_epoch == b.step / self.steps_per_epoch)
        {
            if chunk.len() as u64 == self.steps_per_epoch {
                let mean = chunk.iter().map(|point| point.loss).sum::<f64>() / chunk.len() as f64;
                let epoch = u32::try_from(chunk[0].step / self.steps_per_epoch).unwrap_or(u32::MAX);
                losses.push((epoch, mean));
            }
        }
        losses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(steps: u64, steps_per_epoch: u64) -> History {
        let steps = (0..steps).map(|step| StepPoint {
            step,
            loss: step as f64,
            ..StepPoint::default()
        });
        History::new(steps.collect(), Vec::new(), steps_per_epoch)
    }

    #[test]
    fn a_steps_usual_time_is_that_of_the_newest_whatever_lay_between() {
        let at = |millis: &[u64]| {
            let points = millis.iter().map(|&unix_millis| StepPoint {
                unix_millis,
                ..StepPoint::default()
            });
            History::new(points.collect(), Vec::new(), 1).usual_step()
        };
        assert_eq!(at(&[]), Duration::ZERO);
        assert_eq!(at(&[5]), Duration::ZERO);
        // A resume after an hour, and a clock that was set back.
        let steps = [1000, 1300, 1600, 3_601_600, 3_601_900, 2000, 2300];
        assert_eq!(at(&steps), Duration::from_millis(300));
        // Steps were slower once.
        let slow = (0..100u64).map(|step| step * 9000);
        let fast = (0..40u64).map(|step| 900_000 + step * 200);
        let both: Vec<u64> = slow.chain(fast).collect();
        assert_eq!(at(&both), Duration::from_millis(200));
    }

    #[test]
    fn pages_follow_each_other_and_each_stays_below_the_message_limit() {
        use prost::Message as _;
        let history = history(12_345, 100);
        let (mut from, mut seen) = (0, 0);
        loop {
            let page = history.page(from, 5_000_000);
            assert!(page.encoded_len() < proto::MAX_MESSAGE_BYTES / 2);
            assert_eq!(page.steps.first().map(|point| point.step), Some(seen));
            seen += page.steps.len() as u64;
            from = page.next_step;
            if from == 0 {
                break;
            }
        }
        assert_eq!(seen, 12_345);
    }

    #[test]
    fn only_whole_epochs_have_a_mean_loss() {
        assert_eq!(history(5, 2).epoch_losses(), [(0, 0.5), (1, 2.5)]);
    }
}
