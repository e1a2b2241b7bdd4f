//! Worker processes of this machine: what is said of those that fail, and that none is left behind.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, where both are fine"
)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coordinator::observer::RunEvent;
use coordinator::run::{Launch, RunSetup, Shutdown};
use proto::v1::Phase;
use support::collective::Collective;
use support::worker::{Misbehaviour, spawn};
use support::{Served, setup};

/// A run whose workers are all this shell script. `$5` and so on are the arguments of `worker join`.
fn scripted(dir: &Path, script: &str, workers: usize) -> RunSetup {
    let worker_binary = dir.join("worker");
    std::fs::write(&worker_binary, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&worker_binary, std::fs::Permissions::from_mode(0o755)).unwrap();
    launching(dir, worker_binary, workers)
}

fn launching(dir: &Path, worker_binary: PathBuf, workers: usize) -> RunSetup {
    let devices = vec!["cpu".to_owned(); workers];
    setup(
        dir,
        Launch::Local {
            worker_binary,
            devices,
            threads: 1,
        },
    )
}

/// A run whose workers are processes that follow the protocol: this very test program, started for [`worker_process`]
/// alone. `before` runs first in each, with the arguments of `worker join` as `$*`.
fn protocol_speaking(dir: &Path, before: &str, workers: usize) -> RunSetup {
    let program = std::env::current_exe().unwrap();
    let script = format!(
        "{before}\nHGAT_FAKE_WORKER=\"$*\" exec '{}' --exact worker_process --nocapture",
        program.display()
    );
    scripted(dir, &script, workers)
}

/// Not a test of its own, but what [`protocol_speaking`] starts.
#[tokio::test]
async fn worker_process() {
    let Ok(arguments) = std::env::var("HGAT_FAKE_WORKER") else {
        return;
    };
    let value_of = |name: &str| {
        let mut words = arguments.split(' ').skip_while(|word| *word != name);
        words.nth(1).unwrap().to_owned()
    };
    let kill_at = std::env::var("HGAT_FAKE_KILL_AT")
        .ok()
        .map(|step| step.parse().unwrap());
    let await_stop_at = std::env::var("HGAT_FAKE_AWAIT_STOP_AT")
        .ok()
        .map(|step| step.parse().unwrap());
    let misbehaviour = Misbehaviour {
        kill_at,
        await_stop_at,
        ..Misbehaviour::default()
    };
    // Alone in its collective: it runs ahead of its peers, which nothing here depends on.
    let (address, id) = (value_of("--coordinator"), value_of("--worker-id"));
    let seen = spawn(&address, &id, &Collective::alone(), misbehaviour)
        .await
        .unwrap();
    std::process::exit(seen.exit_code.unwrap().try_into().unwrap());
}

fn is_running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// The process ids of everything that was launched, and the log lines that were shown.
fn launched(served: &mut Served) -> (Vec<u32>, Vec<String>) {
    let (mut pids, mut log) = (Vec::new(), Vec::new());
    while let Ok(event) = served.events.try_recv() {
        match event {
            RunEvent::Launched { pid, .. } => pids.push(pid),
            RunEvent::WorkerLog { lines, .. } => log.extend(lines),
            _ => {}
        }
    }
    (pids, log)
}

#[tokio::test]
async fn a_missing_worker_binary_is_an_error_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(launching(dir.path(), dir.path().join("nothing"), 2)).await;
    let outcome = served.end().await;
    assert_eq!(outcome.exit_code, 64);
    assert!(
        outcome.reason.starts_with("cannot start worker-0: "),
        "{}",
        outcome.reason
    );
    assert!(
        outcome.reason.contains("nothing does not exist: build it"),
        "{}",
        outcome.reason
    );
}

#[tokio::test]
async fn a_worker_that_ends_by_itself_is_named_with_its_status_and_log_and_the_others_are_ended() {
    // Given two workers of which the second gives up and the first, which never joins, would stay for ever
    let dir = tempfile::tempdir().unwrap();
    let script = r#"case "$*" in *worker-1*) echo "no such model"; exit 3;; esac; exec sleep 600"#;
    let mut served = Served::start(scripted(dir.path(), script, 2)).await;

    // When
    let status = served.until_phase(Phase::Failed).await;
    let (pids, log) = launched(&mut served);
    let outcome = served.end().await;

    // Then
    assert_eq!(outcome.exit_code, 75);
    assert_eq!(status.reason, outcome.reason);
    assert!(
        outcome
            .reason
            .starts_with("worker-1 ended with exit status 3 before the first generation"),
        "{}",
        outcome.reason
    );
    assert_eq!(log, ["no such model"]);
    assert_eq!(pids.len(), 2);
    assert!(!pids.into_iter().any(is_running));
    assert!(dir.path().join("logs/worker-1.log").exists());
}

#[tokio::test]
async fn a_killed_worker_is_named_with_its_signal() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(scripted(dir.path(), "kill -9 $$", 1)).await;
    let outcome = served.end().await;
    assert!(
        outcome
            .reason
            .starts_with("worker-0 was killed by signal 9 (SIGKILL)"),
        "{}",
        outcome.reason
    );
}

#[tokio::test]
async fn workers_that_ignore_sigterm_are_killed_after_their_grace() {
    // Given a worker that ignores SIGTERM and says so
    let dir = tempfile::tempdir().unwrap();
    let script = r#"trap "" TERM; : > "$(dirname "$0")/ready-$$"; while :; do sleep 1; done"#;
    let mut setup = scripted(dir.path(), script, 1);
    setup.fault_timeout = Duration::from_millis(200);
    let mut served = Served::start(setup).await;
    served.until_phase(Phase::Waiting).await;
    let ready = || {
        std::fs::read_dir(dir.path()).unwrap().any(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with("ready-")
        })
    };
    while !ready() {
        tokio::task::yield_now().await;
    }

    // When the run is stopped
    served.shutdown.send(Shutdown::Interrupt).await.unwrap();
    served.until_phase(Phase::Stopped).await;
    let (pids, _) = launched(&mut served);
    let outcome = served.end().await;

    // Then nothing is left of it
    assert_eq!(outcome.exit_code, 0);
    assert_eq!(pids.len(), 1);
    assert!(!pids.into_iter().any(is_running));
}

#[tokio::test]
async fn workers_end_even_when_the_run_itself_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(scripted(dir.path(), "exec sleep 600", 2)).await;
    served.until_phase(Phase::Waiting).await;
    let (pids, _) = launched(&mut served);
    assert_eq!(pids.len(), 2);

    served.outcome.abort();
    assert!((&mut served.outcome).await.unwrap_err().is_cancelled());

    // SIGKILL was sent by now; the kernel takes its time to let go of the process.
    while pids.iter().any(|pid| is_running(*pid) && !is_zombie(*pid)) {
        tokio::task::yield_now().await;
    }
}

fn is_zombie(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[tokio::test]
async fn worker_processes_do_a_whole_run_and_are_gone_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(protocol_speaking(dir.path(), "", 3)).await;
    served.until_phase(Phase::Finished).await;
    let (pids, _) = launched(&mut served);
    let outcome = served.end().await;
    assert_eq!(outcome.exit_code, 0);
    assert_eq!(outcome.reason, "finished: 8 steps, 2 epochs");
    assert_eq!(pids.len(), 3);
    assert!(!pids.into_iter().any(is_running));
}

#[tokio::test]
async fn a_worker_process_killed_in_training_beyond_its_budget_is_the_cause_and_its_peer_hands_over()
 {
    let dir = tempfile::tempdir().unwrap();
    let before = r#"case "$*" in *worker-1*) export HGAT_FAKE_KILL_AT=2;; esac"#;
    // Not three: two survivors could not agree on a step to stop after, as real ones do by an all-reduce.
    let mut setup = protocol_speaking(dir.path(), before, 2);
    setup.membership.budgets.crash = 0;
    // These workers compute nothing: so many epochs are not over before the process is seen to have ended.
    setup.shape.epochs = 500;
    let mut served = Served::start(setup).await;
    served.until_phase(Phase::Stopped).await;
    let (pids, _) = launched(&mut served);
    let outcome = served.end().await;
    assert_eq!(outcome.exit_code, 75, "{}", outcome.reason);
    assert!(
        outcome
            .reason
            .starts_with("worker-1 (rank 1) was killed by signal 9 (SIGKILL) in generation 1")
            && outcome
                .reason
                .contains("fault.crashes allows none of this kind"),
        "{}",
        outcome.reason
    );
    assert!(!outcome.status.last_checkpoint.is_empty());
    assert!(!pids.into_iter().any(is_running));
}

#[tokio::test]
async fn sigterm_to_the_coordinator_stops_worker_processes_with_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let before = "export HGAT_FAKE_AWAIT_STOP_AT=2";
    let mut served = Served::start(protocol_speaking(dir.path(), before, 2)).await;
    served
        .until("both stand before step 2", |status| {
            status.workers.len() == 2 && status.workers.iter().all(|worker| worker.step == 2)
        })
        .await;
    served.shutdown.send(Shutdown::Terminate).await.unwrap();
    let outcome = served.end().await;
    assert_eq!(outcome.exit_code, 0);
    assert_eq!(
        outcome.reason,
        "stopped after 3 of 8 steps (asked by SIGTERM): resume with --resume"
    );
    assert!(
        dir.path()
            .join("checkpoints/step-00000003/manifest.json")
            .exists()
    );
}
