//! How often, and how soon, a lost worker is started again.
//!
//! Each class of failure has a budget of its own, so that a machine that is reclaimed every few minutes does not use up
//! what a bug may cost. Budgets are counted over a window of time: a run of weeks may lose a worker every day.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::timing::Millis;

/// Failures older than this no longer count.
pub const BUDGET_WINDOW: Millis = Millis(60 * 60 * 1000);
/// The first pause; each further failure of the same worker without a step between them doubles it.
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

/// The failures of the last hour: by class, until when each counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Losses(BTreeMap<LossClass, Vec<Millis>>);

impl Losses {
    /// Those of an earlier part, by how long ago each was when this one began.
    pub(super) fn before(losses: &[(LossClass, Millis)]) -> Self {
        let mut known = Self::default();
        for (class, age) in losses {
            let until = known.0.entry(*class).or_default();
            until.push(BUDGET_WINDOW.since(*age));
        }
        known
    }

    /// Notes a failure; an error is the class's budget, which is then used up.
    pub(super) fn note(
        &mut self,
        class: LossClass,
        budgets: &Budgets,
        now: Millis,
    ) -> Result<(), u32> {
        let losses = self.0.entry(class).or_default();
        losses.retain(|until| *until > now);
        losses.push(now.after(BUDGET_WINDOW));
        let budget = budgets.of(class);
        if losses.len() as u64 > u64::from(budget) {
            return Err(budget);
        }
        Ok(())
    }
}

/// How long to wait before a worker is started again that has been lost so often since it last took part in a step: not
/// at all for one that worked, and longer and longer for one that cannot start.
pub(super) fn pause(losses_in_a_row: u32) -> Millis {
    match losses_in_a_row {
        0 | 1 => Millis(0),
        n if n < 16 => Millis(FIRST_PAUSE.0 << (n - 2)).min(LONGEST_PAUSE),
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
    fn a_worker_that_worked_is_started_at_once_and_pauses_double_up_to_a_minute() {
        let pauses: Vec<_> = (1..12).map(|losses| pause(losses).0).collect();
        assert_eq!(pauses[..4], [0, 500, 1000, 2000]);
        assert_eq!(pauses[10], 60_000);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn classes_do_not_use_up_each_others_budgets() {
        let mut losses = Losses::default();
        assert_eq!(losses.note(LossClass::Hang, &BUDGETS, Millis(0)), Ok(()));
        assert_eq!(losses.note(LossClass::Crash, &BUDGETS, Millis(1)), Ok(()));
        assert_eq!(losses.note(LossClass::Hang, &BUDGETS, Millis(2)), Err(1));
        assert_eq!(
            losses.note(LossClass::Preemption, &BUDGETS, Millis(3)),
            Err(0)
        );
    }

    #[test]
    fn what_is_an_hour_ago_no_longer_counts() {
        let mut losses = Losses::default();
        for at in 0..3 {
            assert_eq!(losses.note(LossClass::Crash, &BUDGETS, Millis(at)), Ok(()));
        }
        assert_eq!(losses.note(LossClass::Crash, &BUDGETS, Millis(3)), Err(3));
        let later = BUDGET_WINDOW.after(Millis(4));
        assert_eq!(losses.note(LossClass::Crash, &BUDGETS, later), Ok(()));
    }

    #[test]
    fn what_an_earlier_part_lost_counts_until_it_is_an_hour_ago() {
        let ago = |minutes: u64| (LossClass::Crash, Millis(minutes * 60_000));
        let mut losses = Losses::before(&[ago(59), ago(30), ago(61), (LossClass::Hang, Millis(0))]);
        assert_eq!(losses.note(LossClass::Crash, &BUDGETS, Millis(0)), Ok(()));
        assert_eq!(losses.note(LossClass::Crash, &BUDGETS, Millis(1)), Err(3));
        let two_minutes_on = Millis(120_000);
        let again = losses.note(LossClass::Hang, &BUDGETS, two_minutes_on);
        assert_eq!(again, Err(1));
        assert_eq!(losses.0[&LossClass::Crash].len(), 4);
        let half_an_hour_on = Millis(31 * 60_000);
        assert_eq!(
            losses.note(LossClass::Crash, &BUDGETS, half_an_hour_on),
            Ok(())
        );
    }
}
