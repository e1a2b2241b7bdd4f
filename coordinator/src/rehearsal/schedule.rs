//! Where the learning rate turns, in steps: what workers will do by `train.schedule`, said beforehand.

use domain::run_plan::RunPlan;

use crate::config::Train;

/// A place at which the rate begins to do something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Milestone {
    /// The first step with it, from 0.
    pub(crate) step: u64,
    /// In words.
    pub(crate) what: String,
}

/// All of a run, in order.
pub(crate) fn milestones(train: &Train, plan: &RunPlan) -> Vec<Milestone> {
    let total = plan.total_steps() as f64;
    let per_epoch = f64::from(plan.steps_per_epoch());
    // Rates are functions of whole steps: the first at or after the place.
    let at = |place: f64, what: &str| Milestone {
        step: place.max(0.0).ceil() as u64,
        what: what.to_owned(),
    };
    let mut found = Vec::new();
    if train.freeze_trunk_epochs > 0 {
        found.push(at(
            f64::from(train.freeze_trunk_epochs) * per_epoch,
            "the trunk begins to move",
        ));
    }
    let warm_up = (train.warmup * total).round();
    if warm_up >= 1.0 {
        found.push(at(warm_up - 1.0, "the peak, after a warm-up in a line"));
    }
    match train.schedule.as_str() {
        "step" => {
            let times = format!("times {}", train.gamma);
            found.extend(
                train
                    .milestones
                    .iter()
                    .map(|epoch| at(epoch * per_epoch, &times)),
            );
        }
        "cosine" => found.push(at(total, "0, down from the peak along half a cosine")),
        "one_cycle" => {
            found.push(at(train.one_cycle_rise * total - 1.0, "the peak"));
            found.push(at(total, "next to nothing"));
        }
        _ => {}
    }
    found.sort_by_key(|milestone| milestone.step);
    found.retain(|milestone| milestone.step <= plan.total_steps());
    found
}

#[cfg(test)]
mod tests {
    use domain::run_plan::RunShape;

    use super::*;
    use crate::config::{Config, Sources};
    use crate::driver::smallest_config;

    #[test]
    fn rates_turn_at_the_steps_that_workers_turn_them_at() {
        let shape = RunShape {
            samples: 100,
            global_batch: 10,
            micro_batch: 5,
            epochs: 10,
            ..smallest_config().shape
        };
        let plan = RunPlan::new(shape, 1).unwrap();
        let turns = |set: &[&str]| -> Vec<u64> {
            let sources = Sources {
                set: set.iter().map(ToString::to_string).collect(),
                ..Sources::default()
            };
            let config = Config::load(&sources).unwrap();
            let found = milestones(&config.train, &plan);
            found.iter().map(|milestone| milestone.step).collect()
        };
        let (none, warm) = ("train.warmup=0.0", "train.warmup=0.1");
        assert_eq!(turns(&["train.schedule=constant", none]), [0; 0]);
        // The worker reaches the peak with the warm-up's last step.
        assert_eq!(turns(&["train.schedule=cosine", warm]), [9, 100]);
        assert_eq!(
            turns(&[
                "train.schedule=step",
                none,
                "train.milestones=[3.0, 5.05, 20.0]"
            ]),
            [30, 51]
        );
        assert_eq!(
            turns(&["train.schedule=one_cycle", none, "train.one_cycle_rise=0.3"]),
            [29, 100]
        );
        assert_eq!(
            turns(&[
                "train.schedule=constant",
                none,
                "train.freeze_trunk_epochs=2"
            ]),
            [20]
        );
    }
}
