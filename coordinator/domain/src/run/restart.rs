//! How often, and how soon, a lost worker is started again.
//!
//! Each class of failure has a budget of its own, so that a machine that is reclaimed every few minutes does not use up
//! what a bug may cost. Budgets are counted over a window of time: a run of weeks may lose a worker every day.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::timing::Millis;

/// Failures older than this no longer count.
pub(super) const WINDOW: Millis = Millis(60 * 60 * 1000);
/// The first pause; each further failure of the same worker within the window doubles it.
const FIRST_PAUSE: Millis = Millis(500);
/// The longest pause.
const LONGEST_PAUSE: Millis = Millis(60_000);

/// Why a worker was lost, as far as it decides what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossClass {
    /// It ended by itself, or its connection did.
    Crash,
    /// It lived and did nothing.
    Hang,
    /// It was told to end from outside.
    Preemption,
    /// It ran out of memory.
    Memory,
}

impl LossClass {
    /// The key that holds its budget.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Crash => "fault.crashes",
            Self::Hang => "fault.hangs",
            Self::Preemption => "fault.preemptions",
            Self::Memory => "fault.out_of_memory",
        }
    }
}

/// How many failures of each class a run survives within an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budgets {
    /// `fault.crashes`.
    pub crash: u32,
    /// `fault.hangs`.
    pub hang: u32,
    /// `fault.preemptions`.
    pub preemption: u32,
    /// `fault.out_of_memory`.
    pub memory: u32,
}

impl Budgets {
    fn of(&self, class: LossClass) -> u32 {
        match class {
            LossClass::Crash => self.crash,
            LossClass::Hang => self.hang,
            LossClass::Preemption => self.preemption,
            LossClass::Memory => self.memory,
        }
    }
}

/// The failures of the last hour.
#[derive(Debug, Clone, Default)]
pub(super) struct Losses(BTreeMap<LossClass, Vec<(Millis, String)>>);

impl Losses {
    /// Notes a failure. Answers how long to wait before the worker is started again, or with the class's budget if
    /// that is used up.
    pub(super) fn note(
        &mut self,
        class: LossClass,
        worker: &str,
        budgets: &Budgets,
        now: Millis,
    ) -> Result<Millis, u32> {
        for losses in self.0.values_mut() {
            losses.retain(|(at, _)| now.since(*at) < WINDOW);
        }
        let earlier = self
            .0
            .values()
            .flatten()
            .filter(|(_, known)| known == worker)
            .count();
        let losses = self.0.entry(class).or_default();
        losses.push((now, worker.to_owned()));
        let budget = budgets.of(class);
        if losses.len() as u64 > u64::from(budget) {
            return Err(budget);
        }
        Ok(pause(earlier))
    }
}

/// None before the first restart, then doubling.
fn pause(earlier: usize) -> Millis {
    match u32::try_from(earlier) {
        Ok(0) => Millis(0),
        Ok(n) if n < 16 => Millis(FIRST_PAUSE.0 << (n - 1)).min(LONGEST_PAUSE),
        _ => LONGEST_PAUSE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGETS: Budgets = Budgets {
        crash: 3,
        hang: 1,
        preemption: 0,
        memory: 0,
    };

    #[test]
    fn the_first_restart_is_at_once_and_pauses_double_up_to_a_minute() {
        let pauses: Vec<_> = (0..10).map(|earlier| pause(earlier).0).collect();
        assert_eq!(pauses[..4], [0, 500, 1000, 2000]);
        assert_eq!(pauses[9], 60_000);
        assert_eq!(pause(usize::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn classes_do_not_use_up_each_others_budgets() {
        let mut losses = Losses::default();
        assert_eq!(
            losses.note(LossClass::Hang, "a", &BUDGETS, Millis(0)),
            Ok(Millis(0))
        );
        assert_eq!(
            losses.note(LossClass::Crash, "b", &BUDGETS, Millis(1)),
            Ok(Millis(0))
        );
        assert_eq!(
            losses.note(LossClass::Hang, "b", &BUDGETS, Millis(2)),
            Err(1)
        );
        assert_eq!(
            losses.note(LossClass::Preemption, "c", &BUDGETS, Millis(3)),
            Err(0)
        );
    }

    #[test]
    fn what_is_an_hour_ago_no_longer_counts() {
        let mut losses = Losses::default();
        for at in 0..3 {
            assert!(
                losses
                    .note(LossClass::Crash, "a", &BUDGETS, Millis(at))
                    .is_ok()
            );
        }
        assert_eq!(
            losses.note(LossClass::Crash, "a", &BUDGETS, Millis(3)),
            Err(3)
        );
        let later = WINDOW.after(Millis(4));
        assert_eq!(
            losses.note(LossClass::Crash, "a", &BUDGETS, later),
            Ok(Millis(0))
        );
    }
}
