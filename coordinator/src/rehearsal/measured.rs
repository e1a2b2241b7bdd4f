//! From what was seen of the short runs to the figures that are extrapolated.

use domain::rehearsal::Measured;

use super::probe::{Observed, ProbeError, WARM_UP};

/// How the short runs were laid out, and what was seen of them.
#[derive(Debug, Clone)]
pub(crate) struct Legs<'a> {
    /// All workers: after the warm-up `steps` that are counted, a checkpoint, two more steps beside it, an evaluation.
    pub(crate) all: &'a Observed,
    /// One worker by itself: the warm-up and as many steps. `None`: all are one.
    pub(crate) alone: Option<&'a Observed>,
    /// Steps that are counted.
    pub(crate) steps: u32,
    /// Images of a step of `all`.
    pub(crate) images_per_step: u32,
}

/// Steps beside the checkpoint.
pub(crate) const BESIDE: u32 = 2;

/// The figures.
///
/// # Errors
/// [`ProbeError::NotSeen`], where one of them is not there.
pub(crate) fn measured(legs: &Legs<'_>) -> Result<Measured, ProbeError> {
    let missing = |missing| ProbeError::NotSeen { missing };
    let all = legs.all;
    let counted = u64::from(WARM_UP)..u64::from(WARM_UP + legs.steps);
    let steps = intervals(all, counted.clone()).ok_or_else(|| missing("a step"))?;
    let slowest_first = rank_times(all, 0..1).fold(0.0, |most: f64, (time, _)| most.max(time));
    let first = all
        .commits
        .get(&0)
        .ok_or_else(|| missing("the first step"))?;
    let before = *all
        .commits
        .get(&(counted.end - 1))
        .ok_or_else(|| missing("a step"))?;
    let last = counted.end + u64::from(BESIDE) - 1;
    let end = *all
        .commits
        .get(&last)
        .ok_or_else(|| missing("the last step"))?;
    let (evaluated, rows) = all.evaluated.ok_or_else(|| missing("the evaluation"))?;
    let (in_place, bytes) = *all
        .checkpoints
        .get(&counted.end)
        .ok_or_else(|| missing("the checkpoint"))?;
    let alone = match legs.alone {
        None => None,
        Some(alone) => {
            let steps = intervals(alone, counted.clone()).ok_or_else(|| missing("a step"))?;
            Some(mean(&steps) * (1.0 - data_wait(alone, counted.clone())))
        }
    };
    Ok(Measured {
        start: (first - slowest_first).max(0.0),
        data_wait: data_wait(all, counted),
        checkpoint: end - before - f64::from(BESIDE) * mean(&steps),
        steps,
        images_per_step: legs.images_per_step,
        alone,
        evaluation: (evaluated - end).max(0.0),
        rows,
        checkpoint_written: (in_place - before).max(0.0),
        checkpoint_bytes: bytes,
    })
}

fn mean(steps: &[f64]) -> f64 {
    steps.iter().sum::<f64>() / steps.len().max(1) as f64
}

/// From the commit before each of these steps to its own.
fn intervals(observed: &Observed, steps: std::ops::Range<u64>) -> Option<Vec<f64>> {
    let at = |step: u64| observed.commits.get(&step).copied();
    steps
        .map(|step| Some(at(step)? - at(step.checked_sub(1)?)?))
        .collect()
}

/// Seconds of each rank's step, and of waiting in it.
fn rank_times(
    observed: &Observed,
    steps: std::ops::Range<u64>,
) -> impl Iterator<Item = (f64, f64)> {
    let within = observed
        .step_times
        .iter()
        .filter(move |time| steps.contains(&time.step));
    within.map(|time| (time.micros as f64 / 1e6, time.data_wait_micros as f64 / 1e6))
}

/// Fraction of ranks' step time that they waited for pictures.
fn data_wait(observed: &Observed, steps: std::ops::Range<u64>) -> f64 {
    let sums = rank_times(observed, steps).fold((0.0, 0.0), |sums, (time, wait)| {
        (sums.0 + time, sums.1 + wait)
    });
    if sums.0 > 0.0 {
        (sums.1 / sums.0).min(1.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::StepTime;

    /// Six steps, the first begun at 3 s, of 1 s each but for the fifth, in which a checkpoint is taken.
    fn observed() -> Observed {
        let ends = [4.0, 5.0, 6.0, 7.0, 8.5, 9.5];
        let rank = |step: u64, data_wait_micros| StepTime {
            step,
            micros: 1_000_000,
            data_wait_micros,
        };
        Observed {
            commits: (0..).zip(ends).collect(),
            step_times: (0..6)
                .flat_map(|step| [rank(step, 100_000), rank(step, 300_000)])
                .collect(),
            evaluated: Some((11.5, 20)),
            checkpoints: [(4, (9.0, 77)), (6, (12.0, 78))].into(),
            ..Observed::default()
        }
    }

    #[test]
    fn figures_are_those_of_the_steps_that_count() {
        let seen = observed();
        let mut alone = observed();
        alone
            .step_times
            .iter_mut()
            .for_each(|time| time.data_wait_micros = 500_000);
        let legs = Legs {
            all: &seen,
            alone: Some(&alone),
            steps: 2,
            images_per_step: 8,
        };

        let figures = measured(&legs).unwrap();

        assert_eq!(
            figures,
            Measured {
                start: 3.0,
                steps: vec![1.0, 1.0],
                images_per_step: 8,
                data_wait: 0.2,
                alone: Some(0.5),
                evaluation: 2.0,
                rows: 20,
                checkpoint: 0.5,
                checkpoint_written: 2.0,
                checkpoint_bytes: 77,
            }
        );
    }

    #[test]
    fn what_was_not_seen_is_named() {
        let named = |change: &dyn Fn(&mut Observed)| {
            let mut seen = observed();
            change(&mut seen);
            let legs = Legs {
                all: &seen,
                alone: None,
                steps: 2,
                images_per_step: 8,
            };
            measured(&legs).unwrap_err().to_string()
        };
        assert!(named(&|seen| seen.evaluated = None).contains("the evaluation was not seen"));
        assert!(named(&|seen| seen.checkpoints.clear()).contains("the checkpoint was not seen"));
        assert!(
            named(&|seen| seen.commits.retain(|step, _| *step != 3))
                .contains("a step was not seen")
        );
    }
}
