//! The bottleneck in one sentence, with what to do about it.

use domain::rehearsal::{Bottleneck, Estimate};

use crate::config::{Config, DeviceChoice};
use crate::terminal::figures::MORE_PICTURES;

/// The sentence; `workers` is how many the run has.
pub(crate) fn sentence(estimate: &Estimate, config: &Config, workers: u32) -> String {
    let shares = &estimate.shares;
    let percent = |part: f64| format!("{:.0} %", 100.0 * part);
    let (name, what, advice) = match estimate.bottleneck {
        Bottleneck::Input => (
            "input",
            format!(
                "{} of step time is spent waiting for pictures, so steps take as long as decoding does",
                percent(shares.input / shares.steps())
            ),
            MORE_PICTURES.to_owned(),
        ),
        Bottleneck::Compute => (
            "compute",
            format!(
                "{} of the run is the model's own forward, backward and update",
                percent(shares.compute)
            ),
            compute(config),
        ),
        Bottleneck::Communication => (
            "communication",
            format!(
                "{} of the run is what a step of {workers} workers takes beyond that of one worker with the same share",
                percent(shares.communication)
            ),
            communication(config),
        ),
        Bottleneck::Evaluation => (
            "evaluation",
            format!("{} of the run is scoring", percent(shares.evaluation)),
            "raise run.evaluate_every_epochs, or lower run.train_figures_samples if training figures are on".to_owned(),
        ),
        Bottleneck::Checkpoints => (
            "checkpoints",
            format!("{} of the run is waiting for checkpoints", percent(shares.checkpoints)),
            "write fewer (run.snapshot_every_steps, run.snapshot_every_epochs), or choose a faster disk by --run-dir"
                .to_owned(),
        ),
        Bottleneck::Start => (
            "start",
            format!("{} of the run is starting workers", percent(shares.start)),
            "nothing to do: the run is short".to_owned(),
        ),
    };
    format!("{name}: {what}; {advice}")
}

fn compute(config: &Config) -> String {
    let mut can = Vec::new();
    if config.run.device != DeviceChoice::Cuda {
        can.push("compute on a GPU (--device cuda)");
    }
    if config.train.precision != "bf16" {
        can.push("set train.precision = \"bf16\"");
    }
    can.push("add workers where there are devices for them");
    can.push("or choose a smaller data.size or model.backbone");
    can.join(", ")
}

fn communication(config: &Config) -> String {
    let mut can = vec!["raise train.global_batch, so that each sum serves more micro-batches"];
    if !config.train.compress_gradients {
        can.push("set train.compress_gradients = true");
    }
    can.push("or take fewer workers");
    can.join(", ")
}
