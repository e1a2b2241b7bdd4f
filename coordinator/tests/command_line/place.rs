//! Where the commands run: a folder with a data set, a worker that computes nothing, and a run directory.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{TRAIN, VAL, dataset};

/// The least that passes for a JPEG file: a header of 16 × 16 grey pixels and an end marker.
const JPEG: &[u8] = &[
    0xFF, 0xD8, 0xFF, 0xC0, 0, 11, 8, 0, 16, 0, 16, 1, 1, 0x11, 0, 0xFF, 0xDA, 0, 8, 1, 1, 0, 0,
    0x3F, 0, 0, 0xFF, 0xD9,
];

/// A run in `run` with the folder's worker.
pub(crate) const START: [&str; 7] = [
    "start",
    "--run-dir",
    "run",
    "--worker-binary",
    "./worker",
    "--device",
    "cpu",
];
/// Two epochs of five steps.
pub(crate) const SHAPE: [&str; 6] = [
    "--set",
    "train.global_batch=6",
    "--set",
    "train.micro_batch=3",
    "--set",
    "train.epochs=2",
];

/// A folder with the data set `coco`, the script `worker` and the run directory `run`.
pub(crate) struct Place<'a>(&'a Path);

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl<'a> Place<'a> {
    pub(crate) fn new(folder: &'a Path) -> Self {
        let dataset = dataset();
        fs::create_dir_all(folder.join("coco/annotations")).unwrap();
        for (name, split, samples) in [("train", &dataset.train, TRAIN), ("val", &dataset.val, VAL)]
        {
            // As in COCO, no image id is in both splits.
            let first = 100 * u32::try_from(name.len()).unwrap();
            let images: Vec<_> = (0..samples)
                .map(|n| json!({ "id": n + first, "file_name": format!("{n}.jpg") }))
                .collect();
            let labels = (0..samples)
                .zip(&split.samples)
                .flat_map(|(n, sample)| sample.labels.iter().map(move |class| (n, *class)));
            let annotations: Vec<_> = (1..)
                .zip(labels)
                .map(|(id, (image, class))| json!({ "id": id, "image_id": image + first, "category_id": class + 1 }))
                .collect();
            let categories: Vec<_> =
                dataset.classes.iter().map(|class| json!({ "id": class.coco_id, "name": class.name, "supercategory": "thing" })).collect();
            let text =
                json!({ "images": images, "annotations": annotations, "categories": categories })
                    .to_string();
            fs::write(
                folder.join(format!("coco/annotations/instances_{name}2017.json")),
                text,
            )
            .unwrap();
            let pictures = folder.join(format!("coco/{name}2017"));
            fs::create_dir_all(&pictures).unwrap();
            // A picture of both splits would be warned of: a comment tells them apart.
            let picture = [
                &JPEG[..2],
                &[0xFF, 0xFE, 0, 3, name.len() as u8],
                &JPEG[2..],
            ]
            .concat();
            (0..samples)
                .for_each(|n| fs::write(pictures.join(format!("{n}.jpg")), &picture).unwrap());
        }
        let program = std::env::current_exe().unwrap();
        let script = format!(
            "#!/bin/sh\nHGAT_FAKE_WORKER=\"$*\" exec '{}' --exact worker_process --nocapture\n",
            program.display()
        );
        fs::write(folder.join("worker"), script).unwrap();
        fs::set_permissions(folder.join("worker"), fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    /// Starts a run, or goes on with it, and waits for its end.
    pub(crate) fn start(&self, more: &[&str]) -> Ended {
        let shape = if more.contains(&"--resume") {
            &[][..]
        } else {
            &SHAPE[..]
        };
        self.run(&[&START[..], shape, more].concat())
    }

    /// Starts a run whose worker waits at its third step for a stop, and waits until it does: the run, and what it will say.
    pub(crate) fn start_until_step_2(
        &self,
        more: &[&str],
    ) -> (Child, impl Iterator<Item = String>) {
        let mut running = self
            .command(&[&START[..], &SHAPE[..], more].concat())
            .env("HGAT_FAKE_AWAIT_STOP_AT", "2")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = said(&mut running);
        assert!(lines.any(|line| line.contains("step 2/")));
        (running, lines)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended {
            code: status.code().unwrap_or(-1),
            out: text(stdout),
            err: text(stderr),
        }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
        command
            .args(arguments)
            .current_dir(self.0)
            .env_remove("RUST_LOG");
        if arguments.contains(&"--dry-run") {
            command.env("HGAT_FAKE_PICKED", "1");
        }
        command
    }

    pub(crate) fn summary(&self) -> Value {
        serde_json::from_slice(&fs::read(self.0.join("run/summary.json")).unwrap()).unwrap()
    }
}

/// What a command says, line by line, to its end.
pub(crate) fn said(running: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(running.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
}

/// Asks a run to stop.
pub(crate) fn terminate(running: &Child) {
    let pid = rustix::process::Pid::from_child(running);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}
