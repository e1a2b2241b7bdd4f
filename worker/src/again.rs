//! A process that cannot go on as it is, and executes itself again: the same command, with the same process id, and nothing of
//! what was in memory. Whoever started it need not notice, which saves the pause that follows a process's end: local workers
//! are started again after one that grows, and so are a cluster's containers.
//!
//! On CUDA that is the way out where an abort of NCCL's hangs, or the context is broken: every further call fails.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use proto::v1::{self, fault::Class, session_request::Message};

use crate::error::exit;
use crate::session::Link;

/// How long the coordinator's word is waited for.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// Tells the coordinator why, and executes this program again. Returns only if that is not to be; the log says why not.
pub(crate) fn execute_again(link: &Link, why: &str) {
    let problem = attempt(link, why);
    tracing::error!("this process cannot execute itself again: {problem}");
}

fn attempt(link: &Link, why: &str) -> io::Error {
    if !link.pulse().has_passed() {
        // What fails before anything was done fails again.
        return io::Error::other("it has done nothing yet");
    }
    let (generation, step) = link.position();
    link.send(Message::Fault(v1::Fault {
        generation,
        step,
        class: Class::Restart.into(),
        message: why.to_owned(),
    }));
    match link.inbox.released_within(TOLD_WITHIN) {
        Some(ended) if ended.exit_code == exit::RETRY => {}
        Some(ended) => return io::Error::other(ended.reason),
        // It could not tell a process of this name from the one that it still waits for.
        None => return io::Error::other("the coordinator does not answer"),
    }
    if link.inbox.requests.drain() {
        return io::Error::other("it was told to end");
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(problem) => return problem,
    };
    if let Err(problem) = nccl_rs::close_on_exec() {
        return problem;
    }
    tracing::warn!("{why}: executing this program again");
    Command::new(program)
        .args(arguments(std::env::args_os().skip(1)))
        .exec()
}

/// Without the lifeline: it ends with the program that held it.
fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    given.filter(|argument| argument != "--lifeline").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_command_without_the_lifeline() {
        let given = [
            "join",
            "--worker-id",
            "worker-1",
            "--lifeline",
            "--device",
            "cuda:1",
        ];
        let again = arguments(given.map(OsString::from).into_iter());
        assert_eq!(
            again,
            ["join", "--worker-id", "worker-1", "--device", "cuda:1"]
        );
    }
}
