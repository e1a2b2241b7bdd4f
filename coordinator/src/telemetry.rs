//! Diagnostic output for people who look into the system: `tracing`, on standard error, apart from the progress that a
//! run shows on its terminal.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// What is logged when `RUST_LOG` does not say: only what a person should act on.
const DEFAULT_FILTER: &str = "warn";

/// Starts logging for the process. `RUST_LOG` and `NO_COLOR` are given by the caller, which alone reads the
/// environment. Later calls change nothing.
pub fn init(rust_log: Option<&str>, no_color: bool) {
    let filter = rust_log
        .filter(|directives| !directives.is_empty())
        .and_then(|directives| EnvFilter::try_new(directives).ok())
        .unwrap_or_else(|| EnvFilter::new(DEFAULT_FILTER));
    let ansi = !no_color && std::io::stderr().is_terminal();
    // An error means that a subscriber is in place: in tests, or by an embedding program's choice.
    let _ = fmt()
        .with_env_filter(filter)
        .with_ansi(ansi)
        .with_writer(std::io::stderr)
        // A log on a full disk is no reason to die, and saying so on the same disk would be one.
        .log_internal_errors(false)
        .try_init();
}
