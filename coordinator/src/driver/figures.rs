//! Moving figures of the last steps: loss, speed, waiting for data.

use std::collections::VecDeque;

use proto::v1::Progress;

/// How many steps the figures are taken over.
const WINDOW: usize = 20;

/// The last steps, as the rank that committed each first saw it.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// (loss, samples, wall time in µs).
    steps: VecDeque<(f64, u32, u64)>,
    /// (waiting in µs, wall time in µs) of every rank.
    waits: VecDeque<(u64, u64)>,
    images: u64,
    ranks: usize,
}

impl Figures {
    /// For this many ranks.
    pub(crate) fn new(ranks: u32) -> Self {
        Self {
            ranks: ranks.max(1) as usize,
            ..Self::default()
        }
    }

    /// Another number of ranks reports from now on; what is known stays.
    pub(crate) fn begin_generation(&mut self, ranks: u32) {
        self.ranks = ranks.max(1) as usize;
        self.waits.truncate(WINDOW * self.ranks);
    }

    /// A step was committed, as its first reporter saw it.
    pub(crate) fn commit(&mut self, progress: &Progress) {
        push(
            &mut self.steps,
            (
                progress.loss,
                progress.samples_in_step,
                progress.step_micros,
            ),
            WINDOW,
        );
        self.images += u64::from(progress.samples_in_step);
    }

    /// A rank reported a step.
    pub(crate) fn report(&mut self, progress: &Progress) {
        push(
            &mut self.waits,
            (progress.data_wait_micros, progress.step_micros),
            WINDOW * self.ranks,
        );
    }

    /// Mean loss; 0 before the first step.
    pub(crate) fn loss(&self) -> f64 {
        match self.steps.len() {
            0 => 0.0,
            n => self.steps.iter().map(|(loss, ..)| loss).sum::<f64>() / n as f64,
        }
    }

    /// All ranks' images per second of step time.
    pub(crate) fn images_per_second(&self) -> f64 {
        let samples: u64 = self
            .steps
            .iter()
            .map(|(_, samples, _)| u64::from(*samples))
            .sum();
        let micros: u64 = self.steps.iter().map(|(.., micros)| micros).sum();
        if micros == 0 {
            0.0
        } else {
            samples as f64 * 1e6 / micros as f64
        }
    }

    /// The fraction of step time that ranks waited for data.
    pub(crate) fn data_wait(&self) -> f64 {
        let waited: u64 = self.waits.iter().map(|(waited, _)| waited).sum();
        let micros: u64 = self.waits.iter().map(|(_, micros)| micros).sum();
        if micros == 0 {
            0.0
        } else {
            (waited as f64 / micros as f64).min(1.0)
        }
    }

    /// Images of all committed steps.
    pub(crate) fn images(&self) -> u64 {
        self.images
    }
}

fn push<T>(window: &mut VecDeque<T>, value: T, limit: usize) {
    if window.len() >= limit {
        window.pop_front();
    }
    window.push_back(value);
}
