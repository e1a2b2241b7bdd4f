//! Wires the command line to the coordinator, and errors to exit codes.

use std::process::ExitCode;

use clap::Parser;
use coordinator::cli::{self, Cli, Environment};
use coordinator::{telemetry, terminal};

fn main() -> ExitCode {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let environment: Environment = std::env::vars_os().filter_map(text).collect();
    let no_color = cli::no_color(&environment);
    telemetry::init(environment.get("RUST_LOG").map(String::as_str), no_color);
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        // Help and version are answers; everything else is usage. That nobody reads them is no error.
        Err(answer) => {
            let _ = answer.print();
            return ExitCode::from(if answer.use_stderr() {
                cli::USAGE
            } else {
                cli::OK
            });
        }
    };
    match cli::run(&command, &environment) {
        Ok(exit_code) => ExitCode::from(exit_code),
        Err(failure) => {
            terminal::error(&failure.sentence, no_color);
            ExitCode::from(failure.exit_code)
        }
    }
}
