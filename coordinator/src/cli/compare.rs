//! `coordinator compare`: what differs between runs, and what may be said of it.

use super::failure::DATA;
use super::{CompareArgs, Failure, OK, USAGE};
use crate::compare::{CompareError, Options, compare, run_dirs, text};
use crate::terminal::answer;

pub(super) fn run(args: &CompareArgs) -> Result<u8, Failure> {
    let options = Options {
        replicates: args.replicates,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let comparison = compare(&run_dirs(&args.runs)?, options)?;
    if args.json {
        let value = serde_json::to_value(&comparison).map_err(|error| {
            Failure::new(super::BUG, format!("the comparison is no JSON: {error}"))
        })?;
        answer(&format!("{value:#}"));
    } else {
        answer(&text(&comparison, args.classes));
    }
    Ok(OK)
}

impl From<CompareError> for Failure {
    fn from(error: CompareError) -> Self {
        let exit_code = match &error {
            CompareError::NoRun { .. } => USAGE,
            CompareError::Content { .. } | CompareError::OtherClasses { .. } => DATA,
        };
        Self::new(exit_code, error.to_string())
    }
}
