//! `worker`: one rank of a run (`join`), and what else needs a model or a decoder (`predict`, `attention`,
//! `scenes`, `pixels`, `cache`).
//!
//! One job: train one replica as the coordinator's plan says. Must not know: config files, which samples a step needs,
//! who else takes part, where checkpoints lie.

mod again;
mod commands;
mod describe;
mod device;
mod error;
mod evaluate;
mod load;
mod member;
mod rows;
mod session;
mod snapshot;
mod train;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use commands::{attention, cache, join, pixels, predict, scenes};

/// Trains HGAT_FC as one rank of a run, and uses what was trained.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Join(join::Join),
    Predict(predict::Predict),
    Attention(attention::Attention),
    Scenes(scenes::Scenes),
    Pixels(pixels::Pixels),
    Cache(cache::CacheCommand),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Asking for help is no mistake.
            let code = if error.use_stderr() {
                error::exit::USAGE
            } else {
                0
            };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        // A log on a full disk is no reason to die, and saying so on the same disk would be one.
        .log_internal_errors(false)
        .init();
    let mut out = std::io::stdout().lock();
    let done = match &cli.command {
        Command::Join(arguments) => join::run(arguments),
        Command::Predict(arguments) => predict::run(arguments, &mut out),
        Command::Attention(arguments) => attention::run(arguments, &mut out),
        Command::Scenes(arguments) => scenes::run(arguments, &mut out),
        Command::Pixels(arguments) => pixels::run(arguments),
        Command::Cache(arguments) => cache::run(arguments, &mut out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
