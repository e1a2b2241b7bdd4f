//! Real runs: both binaries, real processes, drawn pictures on disk.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of several test binaries"
)]

pub(crate) mod disturbed;
pub(crate) mod external;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tch::{Kind, Tensor};

/// A model and pictures as small as they come: what is tested is the machinery.
const SMALL: &[&str] = &[
    "model.backbone=resnet18",
    "model.hidden=16",
    "model.group_channels=8",
    "model.class_channels=6",
    "data.size=32",
    "data.transform=squash_crop",
    "data.resize=36",
    "train.epochs=2",
    "train.global_batch=12",
    "train.micro_batch=2",
    "train.threads=1",
    "train.optimizer=sgd",
    "train.learning_rate_trunk=0.01",
    "train.learning_rate_head=0.01",
    "train.schedule=cosine",
    "train.warmup=0.2",
    "run.keep_checkpoints=8",
];

/// A folder with a drawn data set; runs go beside it.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) dir: PathBuf,
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Place {
    /// Draws `train` and `val` pictures.
    pub(crate) fn with(train: usize, val: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let drawn = Command::new(worker())
            .args(["scenes", "--seed", "3", "--scale", "0.2"])
            .args(["--train", &train.to_string(), "--val", &val.to_string()])
            .arg("--to")
            .arg(folder.path().join("scenes"))
            .output()
            .unwrap();
        assert!(drawn.status.success(), "{drawn:?}");
        Self { folder }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("scenes")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `coordinator start` with the small recipe; `more` are further arguments, `--set` values with a `=` and no dash.
    pub(crate) fn command(&self, name: &str, workers: usize, more: &[&str]) -> Command {
        self.command_with(worker(), name, workers, more)
    }

    /// The same with workers that this program starts.
    pub(crate) fn command_with(
        &self,
        worker_binary: &Path,
        name: &str,
        workers: usize,
        more: &[&str],
    ) -> Command {
        let mut command = Command::new(coordinator());
        command
            .arg("start")
            .arg("--run-dir")
            .arg(self.path(name))
            .arg("--worker-binary")
            .arg(worker_binary);
        if !more.contains(&"--resume") {
            command
                .arg("--workers")
                .arg(workers.to_string())
                .arg("--data")
                .arg(self.data())
                .args(["--device", "cpu"]);
            for setting in SMALL {
                command.args(["--set", setting]);
            }
        }
        for argument in more {
            if argument.contains('=') && !argument.starts_with('-') {
                command.arg("--set");
            }
            command.arg(argument);
        }
        command
            .env_remove("RUST_LOG")
            .env_remove("OMP_NUM_THREADS")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, name: &str, workers: usize, more: &[&str]) -> Run {
        let output = self.command(name, workers, more).output().unwrap();
        Run::new(self.path(name), &output)
    }

    /// A run that must end well.
    pub(crate) fn good(&self, name: &str, workers: usize, more: &[&str]) -> Run {
        let run = self.run(name, workers, more);
        assert_eq!(run.code, Some(0), "{run:#?}\n{}", run.logs());
        run
    }

    pub(crate) fn start(&self, name: &str, workers: usize, more: &[&str]) -> Child {
        let mut command = self.command(name, workers, more);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Run {
    pub(crate) fn new(dir: PathBuf, output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            dir,
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    pub(crate) fn summary(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.dir.join("summary.json")).unwrap()).unwrap()
    }

    pub(crate) fn last(&self) -> PathBuf {
        self.dir.join("checkpoints/last")
    }

    /// SHA-256 of each file of the last checkpoint that has tensors.
    pub(crate) fn hashes(&self) -> BTreeMap<String, String> {
        let manifest: serde_json::Value =
            serde_json::from_slice(&std::fs::read(self.last().join("manifest.json")).unwrap())
                .unwrap();
        manifest["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| {
                (
                    file["name"].as_str().unwrap().to_owned(),
                    file["sha256"].to_string(),
                )
            })
            .filter(|(name, _)| name.ends_with(".safetensors"))
            .collect()
    }

    /// All tensors of the last checkpoint, optimizer's included.
    pub(crate) fn tensors(&self) -> BTreeMap<String, Tensor> {
        tensors_of(&self.last())
    }

    pub(crate) fn logs(&self) -> String {
        let Ok(logs) = std::fs::read_dir(self.dir.join("logs")) else {
            return String::new();
        };
        logs.filter_map(|log| std::fs::read_to_string(log.ok()?.path()).ok())
            .collect()
    }
}

/// All tensors of a checkpoint, optimizer's included.
pub(crate) fn tensors_of(checkpoint: &Path) -> BTreeMap<String, Tensor> {
    ["model", "optimizer"]
        .into_iter()
        .flat_map(|file| {
            let path = checkpoint.join(format!("{file}.safetensors"));
            let tensors = Tensor::read_safetensors(path).unwrap();
            tensors
                .into_iter()
                .map(move |(name, tensor)| (format!("{file}/{name}"), tensor))
        })
        .collect()
}

/// How long something that must come is waited for.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// A run that goes on, and what it has said so far.
pub(crate) struct Watched {
    child: Child,
    dir: PathBuf,
}

impl Watched {
    pub(crate) fn start(command: &mut Command, dir: PathBuf) -> Self {
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, dir }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until this many steps are committed, as the coordinator answers.
    pub(crate) fn wait_for_step(&mut self, step: u64) {
        self.wait_until(|status| status["step"].as_u64() >= Some(step));
    }

    /// Waits until the coordinator answers with such a status, and returns it.
    pub(crate) fn wait_until(
        &mut self,
        condition: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let give_up = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(code) = self.child.try_wait().unwrap() {
                let output = std::io::read_to_string(self.child.stderr.take().unwrap());
                panic!("the run ended early, {code}: {output:?}");
            }
            let status = self.status();
            if let Some(status) = status.as_ref().filter(|status| condition(status)) {
                return status.clone();
            }
            assert!(
                std::time::Instant::now() < give_up,
                "waited in vain: {status:#?}"
            );
            // Each question is a process of its own: the cores are the run's.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// What the coordinator answers, if it does.
    pub(crate) fn status(&self) -> Option<serde_json::Value> {
        let status = Command::new(coordinator())
            .args(["status", "--json", "--run-dir"])
            .arg(&self.dir)
            .output()
            .unwrap();
        serde_json::from_slice(&status.stdout).ok()
    }

    /// The process id of a worker's last start.
    pub(crate) fn newest_pid(&self, name: &str) -> u32 {
        let status = Command::new(coordinator())
            .args(["status", "--json", "--run-dir"])
            .arg(&self.dir)
            .output()
            .unwrap();
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        let workers = status["workers"].as_array().unwrap();
        let worker = workers.iter().find(|worker| worker["worker_id"] == name);
        let pid = worker.and_then(|worker| worker["pid"].as_u64());
        u32::try_from(pid.unwrap()).unwrap()
    }

    /// The same, without a coordinator to ask.
    pub(crate) fn newest_pid_on_disk(&self, name: &str) -> u32 {
        let text = std::fs::read(self.dir.join("workers.json")).unwrap();
        let workers: serde_json::Value = serde_json::from_slice(&text).unwrap();
        u32::try_from(workers[name]["pid"].as_u64().unwrap()).unwrap()
    }

    pub(crate) fn end(self) -> Run {
        Run::new(self.dir, &self.child.wait_with_output().unwrap())
    }
}

/// Sends a signal such as `-KILL`.
pub(crate) fn signal(name: &str, pid: u32) {
    assert!(reaches(name, pid), "{name} did not reach {pid}");
}

/// The same to a process that may be gone; says whether it was there.
pub(crate) fn reaches(name: &str, pid: u32) -> bool {
    let mut kill = Command::new("kill");
    let sent = kill.args([name, &pid.to_string()]).output().unwrap();
    sent.status.success()
}

/// The largest norm-relative difference of any tensor, and its name. Against the norm of the tensor's kind where the
/// tensor itself is next to nothing.
pub(crate) fn distance(
    a: &BTreeMap<String, Tensor>,
    b: &BTreeMap<String, Tensor>,
) -> (f64, String) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    a.iter()
        .filter(|(_, tensor)| tensor.kind() != Kind::Int64)
        .map(|(name, tensor)| {
            let (a, b) = (tensor.to_kind(Kind::Double), b[name].to_kind(Kind::Double));
            let norm = b.norm().double_value(&[]);
            (
                (a - b).norm().double_value(&[]) / norm.max(1e-4),
                name.clone(),
            )
        })
        .fold((0.0, String::new()), |most, one| {
            if one.0 > most.0 { one } else { most }
        })
}

/// Processes whose command line holds `text`.
pub(crate) fn processes_with(text: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(text).then_some(line)
        })
        .collect()
}

pub(crate) fn worker() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_worker"))
}

/// Built beside the worker by `cargo test --workspace`.
pub(crate) fn coordinator() -> PathBuf {
    let path = worker().with_file_name("coordinator");
    assert!(
        path.exists(),
        "{} is missing; build it: cargo build --release -p coordinator",
        path.display()
    );
    path
}
