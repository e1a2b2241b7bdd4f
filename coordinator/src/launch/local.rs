//! Worker processes of this machine: started, watched and ended.
//!
//! Each is the leader of a process group of its own, so that Ctrl-C in a terminal reaches the coordinator alone, which
//! passes it on as a request to stop. Output goes to a file and not a pipe: a worker must outlive a coordinator that
//! is killed. Only processes that were started here, and have not been waited for yet, are ever signalled.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use domain::membership::WorkerId;
use domain::run::{Event, ProcessEnd};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::processes::Processes;
use crate::driver::{Mail, Message};
use crate::reach;

mod adopted;
mod processes;

/// What a process is told when it is recorded; any byte would do.
const NOTED: u8 = b'.';
/// How much of a log's end is shown when its worker failed.
const TAIL_BYTES: u64 = 8 * 1024;
const TAIL_LINES: usize = 20;

/// What every worker process is started with.
#[derive(Debug, Clone)]
pub(crate) struct LocalSpec {
    /// The `worker` binary.
    pub(crate) binary: PathBuf,
    /// One device per worker, by number.
    pub(crate) devices: Vec<String>,
    /// Compute threads of each.
    pub(crate) threads: u32,
    /// The run's name.
    pub(crate) run_id: String,
    /// `http://HOST:PORT` of this coordinator.
    pub(crate) address: String,
    /// Holds `logs/`, the record of processes, and the address of whichever coordinator serves the run.
    pub(crate) run_dir: PathBuf,
}

/// A process that was started.
#[derive(Debug, Clone)]
pub(crate) struct Started {
    pub(crate) pid: u32,
    pub(crate) device: String,
    pub(crate) log: PathBuf,
}

/// Why a worker process could not be started. Texts say what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error("{} does not exist: build it (`cargo build --release`) or name it with --worker-binary", .0.display())]
    NoBinary(PathBuf),
    #[error("{} cannot be executed: {problem}; name the worker binary with --worker-binary", .binary.display())]
    Spawn { binary: PathBuf, problem: io::Error },
    #[error("its log {} cannot be written: {problem}; choose another --run-dir", .log.display())]
    Log { log: PathBuf, problem: io::Error },
    #[error("there is no device number {0}: the run was given fewer devices than workers")]
    NoDevice(u32),
}

/// Whether any worker process that a coordinator has started for this run lives.
pub(crate) fn any_lives(run_dir: &Path) -> bool {
    Processes::read(run_dir).any_lives()
}

/// The processes that were started here.
#[derive(Debug)]
pub(crate) struct LocalWorkers {
    spec: LocalSpec,
    signals: BTreeMap<WorkerId, mpsc::UnboundedSender<Signal>>,
    processes: Processes,
    watchers: JoinSet<()>,
    messages: Mail,
}

impl LocalWorkers {
    /// None yet. Their ends are reported to `messages`.
    pub(crate) fn new(spec: LocalSpec, messages: Mail) -> Self {
        Self {
            processes: Processes::read(&spec.run_dir),
            spec,
            signals: BTreeMap::new(),
            watchers: JoinSet::new(),
            messages,
        }
    }

    /// Takes over what an earlier coordinator has started: processes that live are watched, and those that do not are
    /// reported as ended.
    pub(crate) fn adopt(&mut self) {
        for index in 0..u32::try_from(self.spec.devices.len()).unwrap_or(u32::MAX) {
            let worker = WorkerId::local(index);
            let process = self.processes.noted(&worker);
            let (signal, signals) = mpsc::unbounded_channel();
            self.signals.insert(worker.clone(), signal);
            let messages = self.messages.clone();
            self.watchers
                .spawn(adopted::watch(process, worker, signals, messages));
        }
    }

    /// Starts worker number `index`.
    pub(crate) fn start(&mut self, worker: &WorkerId, index: u32) -> Result<Started, LaunchError> {
        let spec = &self.spec;
        let device = spec
            .devices
            .get(index as usize)
            .ok_or(LaunchError::NoDevice(index))?
            .clone();
        let log = spec.run_dir.join("logs").join(format!("{worker}.log"));
        let (out, err) = open_log(&log).map_err(|problem| LaunchError::Log {
            log: log.clone(),
            problem,
        })?;
        let (lifeline, its_end) = UnixStream::pair().map_err(|problem| LaunchError::Spawn {
            binary: spec.binary.clone(),
            problem,
        })?;
        let child = Command::new(&spec.binary)
            .args([
                "join",
                "--coordinator",
                &spec.address,
                "--run-id",
                &spec.run_id,
            ])
            .args(["--worker-id", worker.as_str(), "--device", &device])
            .arg("--lifeline")
            .arg("--run-dir")
            .arg(&spec.run_dir)
            .env("OMP_NUM_THREADS", spec.threads.to_string())
            .stdin(OwnedFd::from(its_end))
            .stdout(out)
            .stderr(err)
            .process_group(0)
            // The last resort, should this process unwind; the way out is Release, SIGTERM, SIGKILL.
            .kill_on_drop(true)
            .spawn()
            .map_err(|problem| match problem.kind() {
                io::ErrorKind::NotFound if !spec.binary.exists() => {
                    LaunchError::NoBinary(spec.binary.clone())
                }
                _ => LaunchError::Spawn {
                    binary: spec.binary.clone(),
                    problem,
                },
            })?;
        // A child that was just spawned and not waited for has a process id.
        let pid = child.id().unwrap_or(0);
        reach("started");
        self.processes.note(worker, pid);
        // It begins only now, so that none lives which a coordinator that comes after this one would not know of. If this
        // fails, it has ended, which its watchers report.
        let _ = (&lifeline).write_all(&[NOTED]);
        let (signal, signals) = mpsc::unbounded_channel();
        self.signals.insert(worker.clone(), signal);
        self.watchers.spawn(watch_lifeline(
            lifeline,
            (worker.clone(), pid),
            self.messages.clone(),
        ));
        self.watchers.spawn(watch(
            child,
            worker.clone(),
            log.clone(),
            signals,
            self.messages.clone(),
        ));
        Ok(Started { pid, device, log })
    }

    /// A process was seen to end, and what follows from it is decided.
    pub(crate) fn ended(&mut self, worker: &WorkerId) {
        self.processes.forget(worker);
    }

    /// Records what a full disk kept from being recorded.
    pub(crate) fn catch_up(&mut self) {
        self.processes.catch_up();
    }

    /// Tells a worker process to end.
    pub(crate) fn terminate(&self, worker: &WorkerId) {
        self.signal(worker, Signal::TERM);
    }

    /// Ends a worker process.
    pub(crate) fn kill(&self, worker: &WorkerId) {
        self.signal(worker, Signal::KILL);
    }

    fn signal(&self, worker: &WorkerId, signal: Signal) {
        if let Some(signals) = self.signals.get(worker) {
            // Its watcher has ended if the process has: there is nobody to signal.
            let _ = signals.send(signal);
        }
    }

    /// Kills whatever still runs and waits for it; after a run that ended in order there is nothing.
    pub(crate) async fn end_all(mut self) {
        for signals in self.signals.values() {
            let _ = signals.send(Signal::KILL);
        }
        while self.watchers.join_next().await.is_some() {}
    }
}

/// Reports a process that died without a farewell, a tenth of a second before its sockets are closed: see
/// `worker/nccl-rs/src/lifeline.rs`.
async fn watch_lifeline(lifeline: UnixStream, (worker, pid): (WorkerId, u32), messages: Mail) {
    let ready = lifeline.set_nonblocking(true);
    let Ok(mut lifeline) = ready.and_then(|()| tokio::net::UnixStream::from_std(lifeline)) else {
        return; // its session and its process tell of its end, later
    };
    if !matches!(lifeline.read(&mut [0]).await, Ok(1)) {
        // The driver has ended if this fails: nobody wants to know any more.
        let _ = messages.send(Message::Dying { worker, pid }).await;
    }
}

/// One process's life: signals go to it as long as it has not been waited for, so never to a stranger's process id.
async fn watch(
    mut child: Child,
    worker: WorkerId,
    log: PathBuf,
    mut signals: mpsc::UnboundedReceiver<Signal>,
    messages: Mail,
) {
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            Some(signal) = signals.recv() => {
                if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()))
                    && let Err(problem) = kill_process(pid, signal)
                {
                    tracing::debug!(%worker, ?signal, %problem, "a signal did not reach its process");
                }
            }
        }
    };
    let end = match status {
        Ok(status) => end_of(status),
        // Nobody else waits for this child; should it happen, the process is out of reach.
        Err(problem) => {
            tracing::warn!(%worker, %problem, "cannot wait for a worker process");
            ProcessEnd::Code(-1)
        }
    };
    let log = tokio::task::spawn_blocking(move || tail(&log))
        .await
        .unwrap_or_default();
    // The driver has ended if this fails: nobody wants to know any more.
    let _ = messages
        .send(Message::Event(Event::Exited { worker, end, log }))
        .await;
}

fn end_of(status: ExitStatus) -> ProcessEnd {
    match (status.code(), status.signal()) {
        (Some(code), _) => ProcessEnd::Code(code),
        (None, Some(signal)) => ProcessEnd::Signal(signal),
        (None, None) => ProcessEnd::Code(-1),
    }
}

/// A fresh log, twice open for output and errors: a part of a run that was resumed has its own.
fn open_log(path: &Path) -> io::Result<(File, File)> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = File::options().create(true).append(true).open(path)?;
    Ok((file.try_clone()?, file))
}

/// The last lines of a log, as far as they can be read.
fn tail(path: &Path) -> Vec<String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..]
        .iter()
        .map(|line| (*line).to_owned())
        .collect()
}
