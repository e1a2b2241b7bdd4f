//! `history.csv` and `evaluations.csv`: each committed step and each evaluation once, for pandas and spreadsheets.
//!
//! Only numbers: nothing has to be quoted. A figure that is not known is an empty cell.

use std::fmt::Write as _;

use proto::v1::StepPoint;

use crate::evaluation::Evaluated;

/// One row a committed step.
pub(super) fn steps(points: &[StepPoint], steps_per_epoch: u32) -> String {
    let mut text = String::from(
        "step,epoch,unix_seconds,loss,learning_rate_trunk,learning_rate_head,gradient_norm,samples,\
         images_per_second,data_wait_fraction\n",
    );
    for point in points {
        let StepPoint {
            step,
            loss,
            learning_rate_head,
            images_per_second,
            ..
        } = point;
        let epoch = step / u64::from(steps_per_epoch.max(1)) + 1;
        // Versions before these figures were kept left all of them out.
        let kept = point.unix_millis > 0;
        let later = |value: f64| {
            if kept {
                value.to_string()
            } else {
                String::new()
            }
        };
        // Writing into a string does not fail.
        let _ = writeln!(
            text,
            "{step},{epoch},{},{loss},{},{learning_rate_head},{},{},{images_per_second},{}",
            later(point.unix_millis as f64 / 1000.0),
            later(point.learning_rate_trunk),
            later(point.gradient_norm),
            later(point.samples.into()),
            later(point.data_wait_fraction),
        );
    }
    text
}

/// One row an evaluation; `step` counts the steps committed before it. Figures are fractions, at p >= 0.5 unless they
/// say top3.
pub(super) fn evaluations(evaluations: &[Evaluated]) -> String {
    let mut text = String::from(
        "step,epoch,map,cp,cr,cf1,op,or,of1,top3_cp,top3_cr,top3_cf1,top3_op,top3_or,top3_of1,images,skipped,\
         generation,seconds\n",
    );
    let cell = |figure: Option<f64>| figure.map_or_else(String::new, |figure| figure.to_string());
    for known in evaluations {
        let metrics = &known.metrics;
        let _ = write!(
            text,
            "{},{},{}",
            known.step,
            known.epoch + 1,
            cell(metrics.average_precision.map)
        );
        for six in [&metrics.at_threshold, &metrics.top3] {
            for figure in [six.cp, six.cr, six.cf1, six.op, six.or, six.of1] {
                let _ = write!(text, ",{}", cell(figure));
            }
        }
        let _ = writeln!(
            text,
            ",{},{},{},{}",
            metrics.average_precision.samples,
            metrics.skipped.len(),
            known.generation,
            known.seconds
        );
    }
    text
}
