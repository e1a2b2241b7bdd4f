//! The run's time: how long it has lasted, but for the time in which this process was not let run. While it was stopped, or
//! its machine slept, no worker could be heard: what they were silent is not held against them.

use std::time::{Duration, Instant};

use domain::run::Millis;

/// A driver looks at least every second. One that was away for longer than this was not let run.
const ABSENCE: Duration = Duration::from_millis(1500);

/// A clock that stands still while its process does, and never goes back.
#[derive(Debug)]
pub(super) struct Clock {
    began: Instant,
    /// When it was looked at last.
    seen: Instant,
    away: Duration,
    /// What is now.
    at: Instant,
}

impl Clock {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            seen: now,
            away: Duration::ZERO,
            at: now,
        }
    }

    /// The driver runs.
    pub(super) fn look(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.seen);
        if gap > ABSENCE {
            self.away += gap;
            self.at += gap;
        }
        self.seen = now;
    }

    /// The driver runs and handles what came in at `came`: it is as late as that, if it was not later already.
    pub(super) fn reach(&mut self, came: Instant, now: Instant) {
        // First: it may have come after an absence.
        self.look(now);
        self.at = self.at.max(came);
    }

    /// Since the run began.
    pub(super) fn millis(&self) -> Millis {
        let lasted = self.at.saturating_duration_since(self.began + self.away);
        lasted.into()
    }

    /// When it will be so late, if this process runs until then.
    pub(super) fn instant(&self, at: Millis) -> Instant {
        self.began + self.away + Duration::from_millis(at.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn time_in_which_the_process_did_not_run_is_no_time_of_the_run() {
        let began = Instant::now();
        let mut clock = Clock::new(began);
        for second in 1..=3 {
            clock.reach(began + second * SECOND, began + second * SECOND);
        }
        assert_eq!(clock.millis(), Millis(3000));

        // Stopped for eleven seconds; something had come just before, and something comes now
        let back = began + 14 * SECOND;
        clock.reach(began + 3 * SECOND + Duration::from_millis(10), back);
        assert_eq!(clock.millis(), Millis(3000));
        clock.reach(back, back);
        assert_eq!(clock.millis(), Millis(3000));
        clock.reach(back + SECOND, back + SECOND);
        assert_eq!(clock.millis(), Millis(4000));
        assert_eq!(clock.instant(Millis(5000)), back + 2 * SECOND);
    }

    #[test]
    fn it_never_goes_back() {
        let began = Instant::now();
        let mut clock = Clock::new(began);
        clock.look(began + SECOND);
        clock.reach(began + 2 * SECOND, began + 2 * SECOND);
        clock.reach(began + SECOND, began + 2 * SECOND);
        assert_eq!(clock.millis(), Millis(2000));
    }
}
