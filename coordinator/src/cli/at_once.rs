//! `coordinator start --seeds N --at-once K`: K seeds side by side, each a `coordinator start` of its own, begun and
//! watched by this process.
//!
//! Processes of their own, because a run is a process everywhere else: it is stopped, killed, adopted and resumed as if it
//! had been started by hand.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use domain::run::ProcessEnd;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::{Failure, LOST, OK, StartArgs};
use crate::config::Sources;
use crate::slots::Division;
use crate::terminal;

/// A seed that is to be trained.
#[derive(Clone, Debug)]
pub(super) struct ToDo {
    pub(super) seed: u64,
    pub(super) run_dir: PathBuf,
    /// Whether it has begun already.
    pub(super) resume: bool,
}

/// How they ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// The worst of the runs' exit codes.
    pub(super) exit_code: u8,
    /// Whether a signal came.
    pub(super) told_to_stop: bool,
}

/// Trains them, as many at once as there are places. After a failure or a signal no further one begins; those under way go
/// on to their end.
pub(super) async fn run(
    args: &StartArgs,
    sources: &Sources,
    division: &Division,
    to_do: Vec<ToDo>,
) -> Result<Ended, Failure> {
    let lost =
        |what: &str, error: &std::io::Error| Failure::new(LOST, format!("cannot {what}: {error}"));
    let listen = |kind| signal(kind).map_err(|error| lost("take signals", &error));
    let (mut interrupt, mut terminate) = (
        listen(SignalKind::interrupt())?,
        listen(SignalKind::terminate())?,
    );
    let mut waiting = VecDeque::from(to_do);
    let mut free: Vec<usize> = (0..division.places.len()).rev().collect();
    let mut running = JoinSet::new();
    let mut processes: BTreeMap<u64, Pid> = BTreeMap::new();
    let mut ended = Ended {
        exit_code: OK,
        told_to_stop: false,
    };
    loop {
        while ended.exit_code == OK
            && !ended.told_to_stop
            && !waiting.is_empty()
            && let Some(place) = free.pop()
            && let Some(next) = waiting.pop_front()
        {
            let started = command(args, sources, division, place, &next).spawn();
            // Those that run are not left alone for one that cannot.
            let Ok(child) =
                started.inspect_err(|error| tell(&next, &format!("cannot be started: {error}")))
            else {
                ended.exit_code = LOST;
                break;
            };
            if let Some(pid) = child
                .id()
                .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
            {
                processes.insert(next.seed, pid);
            }
            running.spawn(async move {
                let status = watch(child, next.seed).await;
                (place, next, status)
            });
        }
        let pass_on = |signal| {
            for pid in processes.values() {
                // It may have ended just now.
                let _ = kill_process(*pid, signal);
            }
        };
        tokio::select! {
            done = running.join_next() => match done {
                None => return Ok(ended),
                Some(Ok((place, of, status))) => {
                    processes.remove(&of.seed);
                    free.push(place);
                    let code = judge(&of, status, ended.told_to_stop);
                    ended.exit_code = worst(ended.exit_code, code);
                }
                Some(Err(_)) => ended.exit_code = worst(ended.exit_code, super::BUG),
            },
            Some(()) = interrupt.recv() => {
                ended.told_to_stop = true;
                pass_on(Signal::INT);
            }
            Some(()) = terminate.recv() => {
                ended.told_to_stop = true;
                pass_on(Signal::TERM);
            }
        }
    }
}

/// The start of one seed. What the environment says of the config goes with it.
fn command(
    args: &StartArgs,
    sources: &Sources,
    division: &Division,
    place: usize,
    of: &ToDo,
) -> Command {
    let mut words: Vec<OsString> = vec![
        "start".into(),
        "--run-dir".into(),
        of.run_dir.clone().into(),
    ];
    let mut say = |flag: &str, value: Option<OsString>| {
        if let Some(value) = value {
            words.extend([flag.into(), value]);
        }
    };
    say("--config", sources.file.clone().map(Into::into));
    for set in &sources.set {
        say("--set", Some(set.into()));
    }
    // The last one counts.
    say("--set", Some(format!("run.seed={}", of.seed).into()));
    for (_, flag, value) in &sources.flags {
        say(flag, Some(value.into()));
    }
    if !sources.flags.iter().any(|(key, ..)| *key == "run.workers") {
        say("--workers", Some(division.workers.to_string().into()));
    }
    say(
        "--worker-binary",
        args.worker_binary.clone().map(Into::into),
    );
    say("--baseline", args.baseline.map(|_| "thumbnails".into()));
    for (flag, given) in [
        ("--resume", of.resume),
        ("--insecure", args.insecure),
        ("--quiet", args.quiet),
    ] {
        if given {
            words.push(flag.into());
        }
    }
    // Where this binary was replaced meanwhile, the path would name another one.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("coordinator")
        .args(words)
        .envs(division.places[place].iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C in a terminal reaches a whole group: it comes by way of this process, once.
        .process_group(0);
    command
}

/// Shows what it says, each line with its seed, until it has ended.
async fn watch(mut child: Child, seed: u64) -> std::io::Result<ExitStatus> {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    tokio::join!(
        lines(out, |line| terminal::answer(&format!(
            "seed {seed} | {line}"
        ))),
        lines(err, |line| terminal::aside(&format!(
            "seed {seed} | {line}"
        ))),
    );
    child.wait().await
}

async fn lines(from: Option<impl AsyncRead + Unpin>, show: impl Fn(&str)) {
    let Some(from) = from else { return };
    let mut lines = BufReader::new(from).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        show(&String::from_utf8_lossy(&line));
    }
}

/// The exit code that a run's end counts as; says what nobody else has said.
fn judge(of: &ToDo, status: std::io::Result<ExitStatus>, told_to_stop: bool) -> u8 {
    let end = match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => return u8::try_from(code).unwrap_or(LOST),
            // Told to end before it could listen: it has lost nothing.
            (None, Some(signal)) if told_to_stop && [2, 15].contains(&signal) => return OK,
            (None, signal) => ProcessEnd::Signal(signal.unwrap_or_default()).to_string(),
        },
        Err(error) => format!("cannot be waited for: {error}"),
    };
    tell(of, &end);
    LOST
}

fn tell(of: &ToDo, what: &str) {
    terminal::aside(&format!(
        "error: seed {}: its coordinator {what}: see {}; go on by --resume",
        of.seed,
        of.run_dir.display()
    ));
}

/// Of two exit codes the one to look at first: a bug, bad data, usage, then what may be tried again as it is.
fn worst(a: u8, b: u8) -> u8 {
    const ORDER: [u8; 5] = [super::BUG, super::failure::DATA, super::USAGE, LOST, OK];
    // One that is not in the list is of a panic, which is a bug.
    let place = |code: u8| ORDER.iter().position(|known| *known == code).unwrap_or(0);
    if place(a) <= place(b) { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_exit_codes_the_gravest_counts() {
        for (codes, expected) in [
            (vec![], 0),
            (vec![0, 0], 0),
            (vec![0, 75, 0], 75),
            (vec![75, 64], 64),
            (vec![64, 65, 75], 65),
            (vec![65, 1], 1),
            (vec![65, 101], 101),
        ] {
            assert_eq!(
                codes.iter().fold(OK, |a, b| worst(a, *b)),
                expected,
                "{codes:?}"
            );
        }
    }
}
