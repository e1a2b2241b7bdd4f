//! What is asked of a run when something fails.

use std::time::Duration;

use domain::run::Budgets;

use crate::config::settings::Settings;

/// `fault.*`: when something counts as failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// `fault.timeout`: the one timeout for people, from which every other follows.
    pub timeout: Duration,
    /// `fault.grace`: how long a worker that was told to end may take to leave, which whoever tells it to decides.
    pub grace: Duration,
    /// `fault.crashes`, `fault.hangs`, `fault.preemptions`, `fault.out_of_memory`: failures survived within an hour.
    pub budgets: Budgets,
    /// `fault.sentinel_steps`: replicas are compared every so many steps; 0: never.
    pub sentinel_steps: u64,
}

impl Fault {
    pub(super) fn read(settings: &Settings) -> Self {
        Self {
            timeout: Duration::from_secs_f64(settings.number("fault.timeout")),
            grace: Duration::from_secs_f64(settings.number("fault.grace")),
            budgets: Budgets {
                crash: settings.whole("fault.crashes"),
                hang: settings.whole("fault.hangs"),
                preemption: settings.whole("fault.preemptions"),
                memory: settings.whole("fault.out_of_memory"),
            },
            sentinel_steps: settings.whole("fault.sentinel_steps"),
        }
    }
}
