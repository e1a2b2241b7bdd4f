//! What can be said to `coordinator start`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::ConfigArgs;

/// Train: start a run with its workers, or go on with one.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  coordinator start --workers 2 --data /data/coco --run-dir runs/a
  coordinator start --config deploy/experiments/demo.toml --data runs/demo-data --run-dir runs/demo
  coordinator start --workers 8 --device cuda --data /data/coco --run-dir runs/b --init resnet101.pth
  coordinator start --resume --run-dir runs/a
  coordinator start --dry-run --workers 8 --data /data/coco --price-per-worker-hour 2.10
  coordinator start --config deploy/experiments/demo_exp_1.toml --data runs/demo-data --seeds 3 --run-dir runs/exp_1
  coordinator start --workers 2 --data /data/coco --seeds 4 --at-once 4 --run-dir runs/exp      # on eight GPUs

Ctrl-C, SIGTERM or `coordinator stop` stops at the next step boundary, with a checkpoint and exit
code 0. A second one ends at once, without a new checkpoint and with exit code 75; --resume then
goes on from the last checkpoint there is.")]
pub struct StartArgs {
    /// Where values come from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Folder that holds everything about the run; made if it is not there
    #[arg(
        long,
        value_name = "DIR",
        required = false,
        required_unless_present = "dry_run",
        default_value_if("dry_run", "true", "run")
    )]
    pub run_dir: PathBuf,
    /// Go on with the run in --run-dir from its last good checkpoint, with the config recorded there
    #[arg(long)]
    pub resume: bool,
    /// Train the experiment this many times, with the seeds run.seed, run.seed + 1, …, in
    /// RUN_DIR/seed-0, seed-1, …
    #[arg(long, value_name = "N", conflicts_with = "stop_after", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub seeds: Option<u32>,
    /// Train so many of the seeds at the same time, each as a process of its own. No CUDA device serves two of them;
    /// processors are shared out
    #[arg(long, value_name = "K", requires = "seeds", conflicts_with = "dry_run", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub at_once: u32,
    /// End with a checkpoint once this many steps of the run are committed
    #[arg(long, value_name = "STEP")]
    pub stop_after: Option<u64>,
    /// Listen beyond this machine without encryption or authentication
    #[arg(long)]
    pub insecure: bool,
    /// Show nothing but warnings and errors
    #[arg(long, short)]
    pub quiet: bool,
    /// The worker binary [default: `worker` beside this one]
    #[arg(long, value_name = "FILE")]
    pub worker_binary: Option<PathBuf>,
    /// Train something simple beside the model, to compare its mAP with
    #[arg(long, value_enum, value_name = "KIND")]
    pub baseline: Option<Baseline>,
    /// Train nothing that stays: check everything, show the plan, measure a few steps, and say what the run will take in
    /// time, memory, disk and cost, and what limits it
    #[arg(long, conflicts_with = "resume", help_heading = "Dry run")]
    pub dry_run: bool,
    /// Steps that a dry run measures, after two that it does not count; of one alone there would be no spread
    #[arg(long, value_name = "N", default_value_t = 8, requires = "dry_run", help_heading = "Dry run",
        value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub probe_steps: u32,
    /// What an hour of one worker (one device) costs, in any currency
    #[arg(long, value_name = "PRICE", requires = "dry_run", help_heading = "Dry run", value_parser = price)]
    pub price_per_worker_hour: Option<f64>,
    /// The dry run's answer as JSON, one object
    #[arg(long, requires = "dry_run", help_heading = "Dry run")]
    pub json: bool,
}

fn price(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(price) if f64::is_finite(price) && price >= 0.0 => Ok(price),
        _ => Err("a price is a number such as 2.10, not below 0".to_owned()),
    }
}

/// Something simple to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Baseline {
    /// A linear classifier on 8×8 thumbnails, computed while the model trains
    Thumbnails,
}
