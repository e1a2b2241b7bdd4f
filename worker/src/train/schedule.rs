//! The learning rate as a pure function of the step, so that a resumed run cannot lag behind.

use proto::v1::TrainSpec;

/// How the rates move over a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule {
    shape: Shape,
    warmup_steps: f64,
    total_steps: f64,
    /// Steps for which the trunk's rate is 0: it is frozen.
    frozen_steps: u64,
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
    /// Up to the peak by half a cosine and down to nearly nothing by another.
    OneCycle {
        rise: f64,
        start: f64,
        end: f64,
    },
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
            "one_cycle" => Shape::OneCycle {
                rise: spec.one_cycle_rise,
                start: spec.one_cycle_start,
                end: spec.one_cycle_end,
            },
            _ => Shape::Constant,
        };
        Self {
            shape,
            warmup_steps: (spec.warmup * spec.total_steps as f64).round(),
            total_steps: spec.total_steps as f64,
            frozen_steps: u64::from(spec.freeze_trunk_epochs) * spec.steps_per_epoch,
            trunk: spec.learning_rate_trunk,
            head: spec.learning_rate_head,
        }
    }

    /// The rates with which `step` (from 0) is applied.
    pub(crate) fn rates(&self, step: u64) -> Rates {
        let factor = self.factor(step as f64);
        let trunk = if step < self.frozen_steps {
            0.0
        } else {
            self.trunk
        };
        Rates {
            trunk: trunk * factor,
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
                anneal(1.0, 0.0, done)
            }
            // Smith and Topin 2017, https://arxiv.org/abs/1708.07120, as torch's OneCycleLR with cosine annealing in two
            // phases and cycle_momentum=False. Its length is the run's own.
            Shape::OneCycle { rise, start, end } => {
                let (peak, last) = (rise * self.total_steps - 1.0, self.total_steps - 1.0);
                if step < peak {
                    anneal(1.0 / start, 1.0, step / peak)
                } else {
                    let done = ((step - peak) / (last - peak).max(1.0)).min(1.0);
                    anneal(1.0, 1.0 / (start * end), done)
                }
            }
        }
    }
}

/// From one value to another along half a cosine.
fn anneal(from: f64, to: f64, done: f64) -> f64 {
    to + (from - to) / 2.0 * (1.0 + (std::f64::consts::PI * done).cos())
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
    fn the_trunk_stands_still_for_its_epochs_and_then_has_the_rate_of_the_schedule() {
        let mut spec = spec("step", 0.0);
        spec.freeze_trunk_epochs = 4;
        let schedule = Schedule::new(&spec);
        let trunks = [0, 39, 40].map(|step| schedule.rates(step).trunk);
        assert_eq!(trunks[..2], [0.0, 0.0]);
        assert!((trunks[2] - 0.01).abs() < 1e-15);
        assert_eq!(schedule.rates(0).head, 1.0);
    }

    /// `[rise, start, end, total]` and the rates that torch's OneCycleLR gives for a peak of 1.
    #[test]
    fn one_cycle_is_torchs() {
        let program = "
import json, torch
cases = [(0.3, 25.0, 1e4, 100), (0.2, 25.0, 1e4, 37), (0.5, 10.0, 3.0, 11), (0.0, 25.0, 10.0, 8), (1.0, 4.0, 10.0, 9)]
out = []
for rise, start, end, total in cases:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=total, pct_start=rise, div_factor=start,
                                                   final_div_factor=end, cycle_momentum=False)
    rates = []
    for step in range(total):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        if step + 1 < total:
            schedule.step()
    out.append([rise, start, end, total, rates])
print(json.dumps(out))
";
        let python = std::env::var("HGAT_PYTHON").unwrap_or_else(|_| "python3".into());
        let output = std::process::Command::new(python)
            .args(["-W", "ignore", "-c", program])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let cases: Vec<(f64, f64, f64, u64, Vec<f64>)> =
            serde_json::from_slice(&output.stdout).unwrap();
        for (rise, start, end, total, theirs) in cases {
            let schedule = Schedule::new(&TrainSpec {
                schedule: "one_cycle".into(),
                total_steps: total,
                learning_rate_head: 1.0,
                one_cycle_rise: rise,
                one_cycle_start: start,
                one_cycle_end: end,
                ..Default::default()
            });
            for (step, theirs) in (0..total).zip(theirs) {
                let ours = schedule.rates(step).head;
                assert!(
                    (ours - theirs).abs() < 1e-12,
                    "rise {rise}, step {step}: {ours} {theirs}"
                );
            }
        }
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
