//! The learning rate as a pure function of the step, so that a resumed run cannot lag behind.

use proto::v1::TrainSpec;

/// How the rates move over a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule {
    shape: Shape,
    warmup_steps: f64,
    total_steps: f64,
    trunk: f64,
    head: f64,
}

#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Constant,
    /// Multiplied by `gamma` at each of `at` (steps).
    Step {
        at: Vec<f64>,
        gamma: f64,
    },
    /// Half a cosine from the peak to 0 over what follows the warm-up.
    Cosine,
}

/// The rates of the two parameter groups at one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rates {
    pub(crate) trunk: f64,
    pub(crate) head: f64,
}

impl Schedule {
    /// The schedule of a run; the coordinator has validated the figures.
    pub(crate) fn new(spec: &TrainSpec) -> Self {
        let per_epoch = spec.steps_per_epoch.max(1) as f64;
        let shape = match spec.schedule.as_str() {
            "step" => Shape::Step {
                at: spec
                    .milestones
                    .iter()
                    .map(|epoch| epoch * per_epoch)
                    .collect(),
                gamma: spec.gamma,
            },
            "cosine" => Shape::Cosine,
            _ => Shape::Constant,
        };
        Self {
            shape,
            warmup_steps: (spec.warmup * spec.total_steps as f64).round(),
            total_steps: spec.total_steps as f64,
            trunk: spec.learning_rate_trunk,
            head: spec.learning_rate_head,
        }
    }

    /// The rates with which `step` (from 0) is applied.
    pub(crate) fn rates(&self, step: u64) -> Rates {
        let factor = self.factor(step as f64);
        Rates {
            trunk: self.trunk * factor,
            head: self.head * factor,
        }
    }

    fn factor(&self, step: f64) -> f64 {
        // Linear warm-up that reaches the peak with its last step (Goyal et al. 2017, section 2.2).
        if step < self.warmup_steps {
            return (step + 1.0) / self.warmup_steps;
        }
        match &self.shape {
            Shape::Constant => 1.0,
            Shape::Step { at, gamma } => {
                gamma.powi(at.iter().filter(|&&at| step >= at).count() as i32)
            }
            // Loshchilov and Hutter 2016, equation 5, one cycle down to 0.
            Shape::Cosine => {
                let span = (self.total_steps - self.warmup_steps).max(1.0);
                let done = ((step - self.warmup_steps) / span).clamp(0.0, 1.0);
                0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(schedule: &str, warmup: f64) -> TrainSpec {
        TrainSpec {
            schedule: schedule.into(),
            warmup,
            total_steps: 100,
            steps_per_epoch: 10,
            learning_rate_trunk: 0.1,
            learning_rate_head: 1.0,
            milestones: vec![3.0, 5.0],
            gamma: 0.1,
            ..Default::default()
        }
    }

    #[test]
    fn warm_up_climbs_in_a_line_and_ends_at_the_peak() {
        let schedule = Schedule::new(&spec("constant", 0.1));
        let heads: Vec<f64> = [0, 4, 9, 10, 99]
            .map(|step| schedule.rates(step).head)
            .to_vec();
        assert_eq!(heads, [0.1, 0.5, 1.0, 1.0, 1.0]);
        assert!((schedule.rates(4).trunk - 0.05).abs() < 1e-15);
    }

    #[test]
    fn a_milestone_takes_effect_with_the_first_step_of_its_epoch() {
        let schedule = Schedule::new(&spec("step", 0.0));
        let heads: Vec<f64> = [0, 29, 30, 31, 49, 50, 99]
            .map(|step| schedule.rates(step).head)
            .to_vec();
        let expected = [1.0, 1.0, 0.1, 0.1, 0.1, 0.01, 0.01];
        assert!(
            heads
                .iter()
                .zip(expected)
                .all(|(a, b)| (a - b).abs() < 1e-15),
            "{heads:?}"
        );
    }

    #[test]
    fn cosine_falls_from_the_peak_to_nearly_nothing() {
        let schedule = Schedule::new(&spec("cosine", 0.2));
        assert_eq!(schedule.rates(20).head, 1.0);
        assert!((schedule.rates(60).head - 0.5).abs() < 1e-12);
        assert!(schedule.rates(99).head < 1e-3);
        assert!((20..99).all(|step| schedule.rates(step + 1).head < schedule.rates(step).head));
    }
}
