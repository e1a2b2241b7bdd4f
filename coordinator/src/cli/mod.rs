//! The command line: what can be typed, and which part of the coordinator does it.

mod asking;
mod at_once;
mod checkpoints;
mod checks;
mod client;
mod compare;
mod config_command;
mod dry_run;
mod evaluate;
mod failure;
mod ledger;
mod pictures;
mod replay;
mod report;
mod seeds;
mod signals;
mod start;
mod start_args;
mod workers;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use failure::{BUG, Failure, LOST, OK, USAGE};
pub use start_args::{Baseline, StartArgs};

/// The environment as the process found it; nobody else reads it.
pub type Environment = BTreeMap<String, String>;

/// Whether nothing is to be coloured (<https://no-color.org>).
#[must_use]
pub fn no_color(environment: &Environment) -> bool {
    environment
        .get("NO_COLOR")
        .is_some_and(|value| !value.is_empty())
}

/// Trains HGAT_FC on COCO-format data by worker processes, one per device.
#[derive(Debug, Parser)]
#[command(
    name = "coordinator",
    version,
    after_help = "Examples:
  coordinator start --workers 2 --data /data/coco --run-dir runs/a
  coordinator status --run-dir runs/a --watch
  coordinator start --resume --run-dir runs/a

Exit codes: 0 done, 64 usage or config, 65 bad data, 75 something was lost and trying again may help, 1 a bug."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train: start a run with its workers, or go on with one
    ///
    /// The run directory then holds everything about the run: config.toml, checkpoints/ with `last` and `best`, scores/ of
    /// every validation image for both, logs/ of the workers, events.jsonl, tb/ and at the end summary.json and report.html.
    Start(StartArgs),
    /// Say what a run is doing, and why; of one that has ended, how
    Status(StatusArgs),
    /// List a run's workers, and with --stacks where every thread of each is
    ///
    /// With --stacks every worker says where each of its threads is, which tells what a run that seems to hang waits for.
    Workers(WorkersArgs),
    /// Stop a run at the next step boundary, with a checkpoint; it can be resumed
    ///
    /// A second stop, like a second Ctrl-C or SIGTERM to the coordinator, ends the run at once and without a new checkpoint,
    /// for when a step boundary is long in coming: it can be resumed from the last checkpoint there is, and the coordinator's
    /// exit code is 75 where it is 0 after the first.
    Stop(AddressArgs),
    /// List a run's checkpoints, newest last
    Checkpoints(CheckpointsArgs),
    /// Show which samples a run has trained on, and check that it was each exactly once
    ///
    /// The check counts the samples of every committed step against the split, and compares what each rank says it decoded
    /// and applied with what it was given. It ends with 65 if anything is wrong. Steps are counted from 1 here, as the terminal
    /// counts them; --json, like the records, numbers them from 0.
    Ledger(LedgerArgs),
    /// Put a run's recorded events through its decisions again, and compare
    ///
    /// Ends with 65 and names the first event about which something else would be decided now, or the place where lines are
    /// missing.
    Replay(ReplayArgs),
    /// Make a run's report again: report.html, history.csv, evaluations.csv and tb/
    ///
    /// Writes report.html (one file, no network), history.csv, evaluations.csv and tb/ for TensorBoard into the run directory
    /// and prints the page's path. The attention of a gat run is measured by the worker binary, within two minutes on the CPU.
    Report(ReportArgs),
    /// Compute mAP and the other figures of predictions, as a run does
    Evaluate(EvaluateArgs),
    /// Compare runs: configs, curves, classes, cost, and what may be said of the difference
    ///
    /// Runs whose configs differ only in run.seed are one experiment. A difference is claimed only at three seeds of each or
    /// more, where it stands out of the chance of seeds and of the chance of images both.
    Compare(CompareArgs),
    /// Show the config, or every key there is
    Config {
        /// What to show.
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// Where config values come from.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// TOML file of config values; `coordinator config keys` lists the keys
    #[arg(long, value_name = "FILE", help_heading = "Config")]
    pub config: Option<PathBuf>,
    /// One config value, e.g. --set train.epochs=10; may be repeated and wins over --config and HGAT_TRAIN__EPOCHS.
    /// What a flag such as --workers says too must be the same
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Config")]
    pub set: Vec<String>,
    /// Worker processes on this machine [run.workers; default: one per CUDA device, or one]
    #[arg(long, value_name = "N", help_heading = "Config")]
    pub workers: Option<String>,
    /// Folder in COCO's layout: annotations/, train2017/, val2017/ or 2014 [data.root]
    #[arg(long, value_name = "DIR", help_heading = "Config")]
    pub data: Option<String>,
    /// What workers compute on: auto, cpu or cuda [run.device; default: auto]
    #[arg(long, value_name = "DEVICE", help_heading = "Config")]
    pub device: Option<String>,
    /// Where gRPC is served [run.listen; default: 127.0.0.1:0, any free port]
    #[arg(long, value_name = "ADDR", help_heading = "Config")]
    pub listen: Option<String>,
    /// Weight file to start from: safetensors, .pth or .pth.tar [train.init; train.init_mode says what to take of it]
    #[arg(long, value_name = "FILE", help_heading = "Config")]
    pub init: Option<String>,
}

impl ConfigArgs {
    fn sources(&self, environment: &Environment) -> crate::config::Sources {
        let flags = [
            ("run.workers", "--workers", &self.workers),
            ("data.root", "--data", &self.data),
            ("run.device", "--device", &self.device),
            ("run.listen", "--listen", &self.listen),
            ("train.init", "--init", &self.init),
        ];
        let given = |(key, flag, value): (&'static str, &'static str, &Option<String>)| {
            Some((key, flag, value.clone()?))
        };
        crate::config::Sources {
            file: self.config.clone(),
            set: self.set.clone(),
            flags: flags.into_iter().filter_map(given).collect(),
            ..Default::default()
        }
        .with_environment(environment.clone())
    }
}

/// Which run is meant.
#[derive(Clone, Debug, Args)]
pub struct AddressArgs {
    /// The run's directory, where its coordinator has written its address
    #[arg(long, value_name = "DIR", required_unless_present = "address")]
    pub run_dir: Option<PathBuf>,
    /// The coordinator's address, e.g. 127.0.0.1:7000
    #[arg(long, value_name = "ADDR", conflicts_with = "run_dir")]
    pub address: Option<String>,
}

/// Say what a run is doing, and why; of one that has ended, how.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Which run.
    #[command(flatten)]
    pub run: AddressArgs,
    /// Go on showing changes until the run is over
    #[arg(long, short)]
    pub watch: bool,
    /// JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

/// List a run's workers: rank, host, device, what each does, and the collective it last entered or left.
#[derive(Debug, Args)]
pub struct WorkersArgs {
    /// Which run.
    #[command(flatten)]
    pub run: AddressArgs,
    /// The stack of every thread, innermost function first
    #[arg(long)]
    pub stacks: bool,
    /// JSON, one object a line and worker
    #[arg(long)]
    pub json: bool,
}

/// List a run's checkpoints, newest last.
#[derive(Debug, Args)]
pub struct CheckpointsArgs {
    /// The run's directory; its coordinator need not be running
    #[arg(long, value_name = "DIR")]
    pub run_dir: PathBuf,
    /// Read every file and compare its SHA-256 with the manifest
    #[arg(long)]
    pub verify: bool,
    /// JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

/// Show which samples a run has trained on, and check that it was each exactly once.
#[derive(Debug, Args)]
pub struct LedgerArgs {
    /// The run's directory; the run may go on meanwhile
    #[arg(long, value_name = "DIR")]
    pub run_dir: PathBuf,
    /// Show only what the check has found
    #[arg(long)]
    pub verify: bool,
    /// JSON, one object
    #[arg(long)]
    pub json: bool,
}

/// Put a run's recorded events through its decisions again, and compare.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// `events.jsonl` of a run directory
    #[arg(value_name = "FILE")]
    pub events: PathBuf,
}

/// Make a run's report again, whether the run has ended, is under way, or was killed.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The run's directory; its coordinator need not be running
    #[arg(long, value_name = "DIR")]
    pub run_dir: PathBuf,
    /// Do not measure attention; what was measured before is shown
    #[arg(long)]
    pub without_attention: bool,
    /// The worker binary [default: `worker` beside this one]
    #[arg(long, value_name = "FILE")]
    pub worker_binary: Option<PathBuf>,
}

/// Compute mAP and the other figures of predictions, as a run does.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  worker predict --checkpoint runs/a/checkpoints/best --images /data/coco/val2014 --json > predictions.jsonl
  coordinator evaluate --predictions predictions.jsonl --annotations /data/coco/annotations/instances_val2014.json")]
pub struct EvaluateArgs {
    /// What `worker predict --json` wrote: one object a line with `file` and `logits` in class order
    #[arg(long, value_name = "FILE")]
    pub predictions: PathBuf,
    /// COCO annotation file of the same images
    #[arg(long, value_name = "FILE")]
    pub annotations: PathBuf,
    /// JSON, one object
    #[arg(long)]
    pub json: bool,
}

/// Compare runs: configs, curves, classes, cost, and what may be said of the difference.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coordinator compare runs/exp_1 runs/exp_2 runs/exp_3          # folders of seed-0, seed-1, …, as start --seeds makes them
  coordinator compare runs/a runs/b --json")]
pub struct CompareArgs {
    /// Run directories, or folders of runs by seed
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// Show every class, not only the largest differences of each group
    #[arg(long)]
    pub classes: bool,
    /// How often the validation images are drawn again
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub replicates: u32,
    /// JSON, one object
    #[arg(long)]
    pub json: bool,
}

/// Show the config, or every key there is.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the config that `start` would use with the same flags, and where each value came from
    Print {
        /// Where values come from.
        #[command(flatten)]
        config: ConfigArgs,
        /// JSON, one object
        #[arg(long)]
        json: bool,
    },
    /// Print every key with its kind, default and meaning, as Markdown
    Keys,
}

/// Does what was asked for; gives the exit code.
///
/// # Errors
/// [`Failure`] with the exit code and the sentence to show.
pub fn run(command: &Command, environment: &Environment) -> Result<u8, Failure> {
    match command {
        Command::Config {
            command: ConfigCommand::Keys,
        } => config_command::keys(),
        Command::Config {
            command: ConfigCommand::Print { config, json },
        } => config_command::print(&config.sources(environment), *json),
        Command::Evaluate(args) => evaluate::evaluate(args),
        Command::Compare(args) => compare::run(args),
        Command::Checkpoints(args) => checkpoints::checkpoints(args),
        Command::Ledger(args) => ledger::ledger(args),
        Command::Replay(args) => replay::replay(args),
        Command::Report(args) => runtime()?.block_on(report::report(args)),
        Command::Status(args) => runtime()?.block_on(client::status(args)),
        Command::Workers(args) => runtime()?.block_on(workers::workers(args)),
        Command::Stop(args) => runtime()?.block_on(client::stop(args)),
        Command::Start(args) if args.dry_run => dry_run::run(args, environment),
        Command::Start(args) => {
            if let Some(count) = args.seeds {
                return seeds::run(args, count, environment);
            }
            let prepared = start::prepare(args, &args.config.sources(environment), environment)?;
            runtime()?.block_on(start::start(prepared))
        }
    }
}

/// Two threads: the coordinator shares its processors with the workers.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(
                LOST,
                format!(
                    "cannot start threads ({error}): check the limits of this process (ulimit -u)"
                ),
            )
        })
}

#[cfg(test)]
mod tests;
