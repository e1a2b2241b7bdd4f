//! What the next heartbeat says: written by the training thread, read by the stream's.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use proto::v1;

/// How long a training thread whose process group was aborted may take to leave it before the process is ended, beside the
/// time of its micro-batch.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);
/// The same in the first micro-batch, whose time is not known.
const FIRST_PASS_WITHIN: Duration = Duration::from_secs(60);

/// What the next heartbeat says. Written by the training thread, read by the stream's.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    generation: AtomicU64,
    step: AtomicU64,
    activity: AtomicU64,
    /// Milliseconds of the first forward pass, in which libraries choose their ways and load code.
    first_pass: AtomicU64,
    /// And of the longest of those after it.
    longest_pass: AtomicU64,
    /// Whether the first one has begun.
    passes: AtomicBool,
    collective: Mutex<(String, bool)>,
}

/// A collective under way; dropping it says that it was left.
#[derive(Debug)]
pub(crate) struct Collective<'a>(&'a Pulse);

impl Drop for Collective<'_> {
    fn drop(&mut self) {
        self.0
            .collective
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .1 = false;
    }
}

impl Pulse {
    /// Notes what the process does.
    pub(super) fn now(&self, generation: u64, step: u64, activity: v1::Activity) {
        self.generation.store(generation, Ordering::Relaxed);
        self.step.store(step, Ordering::Relaxed);
        self.activity.store(activity as u64, Ordering::Relaxed);
    }

    /// The generation and step last noted.
    pub(super) fn position(&self) -> (u64, u64) {
        (
            self.generation.load(Ordering::Relaxed),
            self.step.load(Ordering::Relaxed),
        )
    }

    /// Notes how long a forward pass took.
    pub(crate) fn passed(&self, took: Duration) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        if self.has_passed() {
            self.longest_pass.fetch_max(millis, Ordering::Relaxed);
        } else {
            self.first_pass.store(millis, Ordering::Relaxed);
        }
    }

    /// Whether a forward pass was done.
    pub(crate) fn has_passed(&self) -> bool {
        self.first_pass.load(Ordering::Relaxed) != 0
    }

    /// Notes that a forward pass begins.
    pub(crate) fn passes(&self) {
        self.passes.store(true, Ordering::Relaxed);
    }

    /// How long the training thread may take to leave a generation that is over: it ends the micro-batch that it is in, and
    /// going backward takes about twice as long as going forward. The first one says nothing of those after it: the coordinator
    /// gives up earlier on who takes that long, and then it is too late to begin again.
    pub(crate) fn leave_within(&self) -> Duration {
        let first = self.first_pass.load(Ordering::Relaxed);
        match self.longest_pass.load(Ordering::Relaxed) {
            0 if first == 0 && self.passes.load(Ordering::Relaxed) => FIRST_PASS_WITHIN,
            0 => LEAVE_WITHIN + Duration::from_millis(first) * 5,
            millis => LEAVE_WITHIN + Duration::from_millis(millis) * 5,
        }
    }

    /// Notes that a collective is entered; what it returns notes that it was left.
    pub(super) fn entering(&self, collective: String) -> Collective<'_> {
        *self
            .collective
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = (collective, true);
        Collective(self)
    }

    /// All of it, and whether this process was told to end.
    pub(super) fn heartbeat(&self, draining: bool) -> v1::Heartbeat {
        let (collective, in_collective) = self
            .collective
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        v1::Heartbeat {
            generation: self.generation.load(Ordering::Relaxed),
            step: self.step.load(Ordering::Relaxed),
            activity: i32::try_from(self.activity.load(Ordering::Relaxed)).unwrap_or_default(),
            collective,
            in_collective,
            resident_bytes: resident_bytes().unwrap_or_default(),
            draining,
        }
    }
}

/// Memory of this process in bytes, from `/proc/self/statm` (pages of 4 KiB).
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm
        .split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|pages| pages * 4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pass_counts_until_there_is_another() {
        let pulse = Pulse::default();
        assert_eq!(pulse.leave_within(), LEAVE_WITHIN);
        pulse.passes();
        assert_eq!(pulse.leave_within(), FIRST_PASS_WITHIN);
        assert!(!pulse.has_passed());
        for (millis, expected) in [(2000, 13_000), (100, 3500), (300, 4500), (200, 4500)] {
            pulse.passed(Duration::from_millis(millis));
            assert_eq!(pulse.leave_within(), Duration::from_millis(expected));
        }
        assert!(pulse.has_passed());
    }
}
