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
    /// Of `waits`: with thousands of ranks it is too long to be added up at every step.
    wait_sums: (u64, u64),
    images: u64,
    /// (waiting in µs, wall time in µs) of every rank and step so far.
    run_waits: (u64, u64),
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
        let sums = |(waited, wall): (u64, u64), report: &(u64, u64)| {
            (
                waited.saturating_add(report.0),
                wall.saturating_add(report.1),
            )
        };
        self.wait_sums = self.waits.iter().fold((0, 0), sums);
    }

    /// A step was committed, as its first reporter saw it.
    pub(crate) fn commit(&mut self, progress: &Progress) {
        let _ = push(
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
        // What a worker says is bounded, so that no sum of it overflows.
        let bounded = |micros: u64| micros.min(u64::from(u32::MAX));
        let report = (
            bounded(progress.data_wait_micros),
            bounded(progress.step_micros),
        );
        self.run_waits.0 = self.run_waits.0.saturating_add(report.0);
        self.run_waits.1 = self.run_waits.1.saturating_add(report.1);
        let gone = push(&mut self.waits, report, WINDOW * self.ranks).unwrap_or_default();
        self.wait_sums.0 = self.wait_sums.0 + report.0 - gone.0;
        self.wait_sums.1 = self.wait_sums.1 + report.1 - gone.1;
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
        let (waited, micros) = self.wait_sums;
        if micros == 0 {
            0.0
        } else {
            (waited as f64 / micros as f64).min(1.0)
        }
    }

    /// The fraction of all steps' time that ranks waited for data; nothing before the first.
    pub(crate) fn data_wait_of_run(&self) -> Option<f64> {
        let (waited, micros) = self.run_waits;
        (micros > 0).then(|| (waited as f64 / micros as f64).min(1.0))
    }

    /// Images of all committed steps.
    pub(crate) fn images(&self) -> u64 {
        self.images
    }
}

/// Gives back what has left the window.
fn push<T>(window: &mut VecDeque<T>, value: T, limit: usize) -> Option<T> {
    let gone = (window.len() >= limit)
        .then(|| window.pop_front())
        .flatten();
    window.push_back(value);
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waited(data_wait_micros: u64) -> Progress {
        Progress {
            data_wait_micros,
            step_micros: 100,
            ..Progress::default()
        }
    }

    #[test]
    fn the_wait_for_data_is_that_of_the_window_whatever_left_it() {
        let mut figures = Figures::new(2);
        (0..100).for_each(|_| figures.report(&waited(90)));
        (0..WINDOW).for_each(|_| figures.report(&waited(10)));
        assert_eq!(figures.data_wait(), 0.5);
        // That of the run has seen everything.
        let of_run = (100.0 * 90.0 + WINDOW as f64 * 10.0) / (100.0 * (100.0 + WINDOW as f64));
        assert_eq!(figures.data_wait_of_run(), Some(of_run));
        // With one rank the newest of its window go, as many as are too many.
        figures.begin_generation(1);
        assert_eq!(figures.data_wait(), 0.9);
        (0..WINDOW).for_each(|_| figures.report(&waited(10)));
        assert_eq!(figures.data_wait(), 0.1);
    }
}
