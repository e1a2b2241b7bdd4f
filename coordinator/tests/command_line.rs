//! Whole runs from the command line: the binary as people start it, with workers that compute nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, where both are fine"
)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::collective::Collective;
use support::worker::{Misbehaviour, fates, spawn, spawn_all};
use support::{CLASSES, TRAIN, VAL, dataset};

/// The least that passes for a JPEG file: a header of 16 × 16 grey pixels and an end marker.
const JPEG: &[u8] = &[
    0xFF, 0xD8, 0xFF, 0xC0, 0, 11, 8, 0, 16, 0, 16, 1, 1, 0x11, 0, 0xFF, 0xDA, 0, 8, 1, 1, 0, 0,
    0x3F, 0, 0, 0xFF, 0xD9,
];

#[test]
fn a_run_that_is_stopped_and_resumed_ends_with_a_summary_and_checkpoints_that_verify() {
    // Given a data set on disk
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());

    // When a run is stopped after three steps
    let stopped = at.start(&["--data", "coco", "--workers", "1", "--stop-after", "3"]);

    // Then it says what it is and where it stands
    assert_eq!(stopped.code, 0, "{stopped:?}");
    let parts = [
        "26 training and 11 validation images",
        "3 classes in 1 group",
        "1 worker on cpu (as asked)",
        "stopped after 3 of 10 steps",
    ];
    for part in parts {
        assert!(stopped.out.contains(part), "{part}: {}", stopped.out);
    }
    assert!(
        stopped
            .out
            .ends_with("next        coordinator start --resume --run-dir run\n"),
        "{}",
        stopped.out
    );
    assert_eq!(at.summary()["ended"], "stopped");
    assert_eq!(at.summary()["steps"], 3);

    // When someone starts another run there, or changes what this one computes
    let another = at.start(&["--data", "coco"]);
    let changed = at.start(&["--resume", "--set", "train.epochs=9"]);

    // Then both are refused
    assert_eq!((another.code, changed.code), (64, 64));
    assert!(
        another.err.contains("a run is here already (stopped"),
        "{}",
        another.err
    );
    assert!(
        changed
            .err
            .contains("train.epochs = 9 (--set): this run was started with 2"),
        "{}",
        changed.err
    );

    // When it is resumed as it is
    let finished = at.start(&["--resume"]);

    // Then it goes on there and ends
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(
        finished.out.contains("resuming    at step 3 from "),
        "{}",
        finished.out
    );
    assert!(
        finished.out.contains("average precision: non-interpolated"),
        "{}",
        finished.out
    );
    let summary = at.summary();
    assert_eq!(summary["ended"], "finished");
    assert!(
        (summary["map"].as_f64().unwrap() - support::worker::expected_map()).abs() < 1e-12,
        "{summary}"
    );
    assert_eq!(summary["per_class"].as_object().unwrap().len(), CLASSES);
    let checkpoint = summary["checkpoint"].as_str().unwrap();
    assert!(Path::new(checkpoint).join("model.safetensors").exists());

    // And its checkpoints verify
    let listed = at.run(&["checkpoints", "--run-dir", "run", "--verify", "--json"]);
    assert_eq!(listed.code, 0, "{listed:?}");
    let last: Value = serde_json::from_str(listed.out.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["last"], &last["verified"]),
        (&json!(true), &json!(true))
    );

    // And going on with it is refused, as there is nothing left to do
    let again = at.start(&["--resume"]);
    assert_eq!(again.code, 64);
    assert!(
        again.err.contains("this run has finished all its 2 epochs"),
        "{}",
        again.err
    );
}

#[test]
fn sigterm_stops_a_run_with_a_checkpoint_and_status_answers_meanwhile() {
    // Given a run whose worker waits at its third step for a stop
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    let mut running = at
        .command(&[
            "start",
            "--run-dir",
            "run",
            "--worker-binary",
            "./worker",
            "--device",
            "cpu",
            "--data",
            "coco",
            "--set",
            "train.global_batch=6",
            "--set",
            "train.micro_batch=3",
        ])
        .env("HGAT_FAKE_AWAIT_STOP_AT", "2")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(lines.any(|line| line.contains("step 2/")));

    // When it is asked, and told to end
    let status = at.run(&["status", "--run-dir", "run", "--json"]);
    let in_use = at.start(&["--resume"]);
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&running),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    let rest: Vec<String> = lines.collect();

    // Then it was training, in use by one coordinator, and ends with a checkpoint to go on from
    let status: Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(
        (&status["phase"], &status["workers"][0]["worker_id"]),
        (&json!("training"), &json!("worker-0"))
    );
    assert!(
        in_use
            .err
            .contains(&format!("running here already (pid {})", running.id())),
        "{}",
        in_use.err
    );
    assert_eq!(running.wait().unwrap().code(), Some(0), "{rest:?}");
    let summary = at.summary();
    assert_eq!(
        (&summary["ended"], &summary["exit_code"]),
        (&json!("stopped"), &json!(0))
    );
    assert!(Path::new(summary["checkpoint"].as_str().unwrap()).exists());
}

#[tokio::test]
async fn a_run_waits_for_workers_that_someone_else_starts() {
    // Given a run that starts none, and so needs no worker binary
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    let mut running = at
        .command(&[
            "start",
            "--run-dir",
            "run",
            "--data",
            "coco",
            "--workers",
            "2",
            "--set",
            "run.launch=external",
            "--set",
            "train.global_batch=6",
            "--set",
            "train.micro_batch=3",
            "--set",
            "train.epochs=1",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let placed = lines.find(|line| line.contains("workers")).unwrap();
    assert!(
        placed.contains("2 workers on a device of its own each (run.launch = external)"),
        "{placed}"
    );

    // When two come
    assert!(lines.any(|line| line.contains("gRPC")));
    let address: Value =
        serde_json::from_slice(&fs::read(folder.path().join("run/coordinator.json")).unwrap())
            .unwrap();
    let workers = spawn_all(address["address"].as_str().unwrap(), 2);
    let rest = tokio::task::spawn_blocking(move || lines.collect::<Vec<_>>())
        .await
        .unwrap();

    // Then they are all it needs
    assert_eq!(running.wait().unwrap().code(), Some(0), "{rest:?}");
    assert!(
        fates(workers)
            .await
            .iter()
            .all(|seen| seen.exit_code == Some(0))
    );
}

#[test]
fn quiet_says_nothing_when_nothing_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let quiet = Place::new(folder.path()).start(&["--data", "coco", "--workers", "1", "--quiet"]);
    assert_eq!(
        (quiet.code, quiet.out.as_str(), quiet.err.as_str()),
        (0, "", "")
    );
}

#[test]
fn a_port_that_is_taken_is_named_with_its_key_before_any_worker_starts() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    let refused = Place::new(folder.path()).start(&["--data", "coco", "--listen", &address]);

    assert_eq!(refused.code, 64);
    assert!(
        refused.err.contains(&format!(
            "run.listen = {address} (--listen) cannot be listened at"
        )),
        "{}",
        refused.err
    );
    assert!(!folder.path().join("run/logs").exists());
}

#[test]
fn missing_images_end_the_start_with_65_and_are_left_out_with_skip() {
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    fs::remove_file(folder.path().join("coco/train2017/3.jpg")).unwrap();

    let refused = at.start(&["--data", "coco"]);
    assert_eq!(refused.code, 65);
    assert!(
        refused.err.contains("train2017/3.jpg") && refused.err.contains("instances_train2017.json"),
        "{}",
        refused.err
    );
    assert!(!folder.path().join("run/logs").exists());

    let skipping = at.start(&[
        "--data",
        "coco",
        "--workers",
        "1",
        "--set",
        "data.on_bad_image=skip",
    ]);
    assert_eq!(skipping.code, 0, "{skipping:?}");
    assert_eq!(skipping.err.matches("3.jpg").count(), 1, "{}", skipping.err);
}

#[test]
fn figures_of_predictions_in_a_file_are_those_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    let line = |n: u32| {
        let logits: Vec<f32> = (0..CLASSES)
            .map(|class| support::worker::logit(n, class))
            .collect();
        json!({ "file": format!("{n}.jpg"), "logits": logits }).to_string()
    };
    fs::write(
        folder.path().join("p.jsonl"),
        (0..VAL).rev().map(line).collect::<Vec<_>>().join("\n"),
    )
    .unwrap();

    let annotations = "coco/annotations/instances_val2017.json";
    let evaluated = at.run(&[
        "evaluate",
        "--predictions",
        "p.jsonl",
        "--annotations",
        annotations,
        "--json",
    ]);

    let figures: Value = serde_json::from_str(&evaluated.out).unwrap();
    assert!(
        (figures["map"].as_f64().unwrap() - support::worker::expected_map()).abs() < 1e-12,
        "{figures}"
    );
    assert_eq!(figures["images"], VAL);
}

#[test]
fn seeds_are_trained_one_after_another_stopped_resumed_and_compared() {
    // Given an experiment of three seeds that is stopped in its first
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    let seeds = |more: &[&str]| {
        let three = ["--data", "coco", "--workers", "1", "--seeds", "3"];
        at.start(&[&three[..], more].concat())
    };
    let mut running = at
        .command(&[
            "start",
            "--run-dir",
            "run",
            "--worker-binary",
            "./worker",
            "--device",
            "cpu",
            "--data",
            "coco",
            "--workers",
            "1",
            "--seeds",
            "3",
            "--set",
            "train.global_batch=6",
            "--set",
            "train.micro_batch=3",
            "--set",
            "train.epochs=2",
            "--set",
            "run.seed=4",
        ])
        .env("HGAT_FAKE_AWAIT_STOP_AT", "2")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(lines.any(|line| line.contains("step 2/")));
    let pid = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let rest: Vec<String> = lines.collect();

    // Then no other seed begins, and it is said how to go on
    assert_eq!(running.wait().unwrap().code(), Some(0), "{rest:?}");
    assert_eq!(
        rest.last().unwrap(),
        "  all seeds   coordinator start --resume --seeds 3 --run-dir run"
    );
    assert!(!folder.path().join("run/seed-5").exists());
    let again = seeds(&[]);
    assert_eq!(again.code, 64);
    assert!(
        again
            .err
            .contains("1 seed of this experiment has begun here already"),
        "{}",
        again.err
    );

    // When it is resumed
    let finished = at.start(&["--resume", "--seeds", "3"]);

    // Then the first goes on where it stood and the others follow, of the recorded config
    assert_eq!(finished.code, 0, "{finished:?}");
    for part in [
        "seed 4 (1 of 3): run/seed-4",
        "resuming    at step ",
        "seed 6 (3 of 3): run/seed-6",
        "mean last",
        "coordinator compare run OTHER",
    ] {
        assert!(finished.out.contains(part), "{part}: {}", finished.out);
    }
    let config = fs::read_to_string(folder.path().join("run/seed-6/config.toml")).unwrap();
    assert!(
        config.contains("seed = 6") && config.contains("epochs = 2"),
        "{config}"
    );
    let nothing = at.start(&["--resume", "--seeds", "3"]);
    assert_eq!(nothing.code, 0);
    assert!(
        nothing.out.contains("seed 5 (2 of 3) is finished"),
        "{}",
        nothing.out
    );

    // When another experiment is set beside it
    let other = at.run(&[
        "start",
        "--run-dir",
        "other",
        "--worker-binary",
        "./worker",
        "--device",
        "cpu",
        "--data",
        "coco",
        "--workers",
        "1",
        "--seeds",
        "1",
        "--set",
        "train.global_batch=6",
        "--set",
        "train.micro_batch=3",
        "--set",
        "train.epochs=2",
        "--set",
        "model.graph=none",
        "--quiet",
    ]);
    assert_eq!((other.code, other.out.as_str()), (0, ""), "{other:?}");
    let compared = at.run(&["compare", "run", "other/seed-0", "--json"]);

    // Then the seeds are one side, the config's difference is named, and one seed makes no winner
    assert_eq!(compared.code, 0, "{compared:?}");
    let found: Value = serde_json::from_str(&compared.out).unwrap();
    assert_eq!(found["sides"][0]["name"], "run");
    assert_eq!(found["sides"][0]["last"]["seeds"], 3);
    assert_eq!(found["sides"][1]["name"], "other");
    assert_eq!(found["differs"][0]["key"], "model.graph");
    assert_eq!(found["differs"].as_array().unwrap().len(), 1);
    let pair = &found["pairs"][0];
    assert_eq!(pair["verdict"], "too_few_seeds");
    // Both score alike, and so on any images
    assert!(pair["difference"].as_f64().unwrap().abs() < 1e-12, "{pair}");
    for end in ["low", "high"] {
        assert!(
            pair["images"][end].as_f64().unwrap().abs() < 1e-12,
            "{pair}"
        );
    }
    let words = at.run(&["compare", "run", "other"]);
    assert!(
        words
            .out
            .contains("verdict      no verdict at 3 and 1 seeds"),
        "{}",
        words.out
    );

    // And a run that is named twice is no further seed
    let twice = at.run(&["compare", "run", "run/seed-4"]);
    assert!(
        twice
            .out
            .contains("note: run/seed-4 is of the same config and seed as run/seed-4"),
        "{}",
        twice.out
    );
    assert!(
        twice.out.starts_with("1 experiment in 3 runs"),
        "{}",
        twice.out
    );

    // And what is no run is refused by name
    let refused = at.run(&["compare", "run", "coco"]);
    assert_eq!(refused.code, 64);
    assert!(
        refused.err.contains("coco: there is no run here"),
        "{}",
        refused.err
    );
}

/// Not a test of its own, but what the runs above start as their worker.
#[tokio::test]
async fn worker_process() {
    let Ok(arguments) = std::env::var("HGAT_FAKE_WORKER") else {
        return;
    };
    let value_of = |name: &str| {
        let mut words = arguments.split(' ').skip_while(|word| *word != name);
        words.nth(1).unwrap().to_owned()
    };
    let (address, id) = (value_of("--coordinator"), value_of("--worker-id"));
    let await_stop_at = std::env::var("HGAT_FAKE_AWAIT_STOP_AT")
        .ok()
        .map(|step| step.parse().unwrap());
    let misbehaviour = Misbehaviour {
        await_stop_at,
        ..Misbehaviour::default()
    };
    let seen = spawn(&address, &id, &Collective::alone(), misbehaviour)
        .await
        .unwrap();
    std::process::exit(seen.exit_code.unwrap().try_into().unwrap());
}

/// A folder with the data set `coco`, the script `worker` and the run directory `run`.
/// Two seeds at once, begun and both at their second step, where their workers wait for a stop; and what is yet to be read.
fn two_at_once(
    at: &Place<'_>,
    run_dir: &str,
) -> (std::process::Child, impl Iterator<Item = String> + use<>) {
    let mut running = at
        .command(&[
            "start",
            "--run-dir",
            run_dir,
            "--worker-binary",
            "./worker",
            "--device",
            "cpu",
            "--data",
            "coco",
            "--workers",
            "1",
            "--seeds",
            "2",
            "--at-once",
            "2",
            "--set",
            "train.global_batch=6",
            "--set",
            "train.micro_batch=3",
            "--set",
            "train.epochs=2",
            "--set",
            "run.seed=4",
        ])
        .env("HGAT_FAKE_AWAIT_STOP_AT", "2")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let mut missing = vec!["seed 4 | ", "seed 5 | "];
    for line in lines.by_ref() {
        missing.retain(|seed| !(line.starts_with(seed) && line.contains("step 2/")));
        if missing.is_empty() {
            break;
        }
    }
    assert_eq!(
        missing, [""; 0],
        "the runs do not get to their second steps"
    );
    (running, lines)
}

fn terminate(running: &std::process::Child) {
    let pid = rustix::process::Pid::from_child(running);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

#[test]
fn seeds_at_once_are_stopped_together_and_resumed() {
    // Given two seeds that train side by side
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    let (mut running, lines) = two_at_once(&at, "run");
    let ended = |seed: u32| -> Value {
        let summary =
            fs::read(folder.path().join(format!("run/seed-{seed}/summary.json"))).unwrap();
        serde_json::from_slice::<Value>(&summary).unwrap()["ended"].clone()
    };

    // When the one process that was started is told to end
    terminate(&running);
    let rest: Vec<String> = lines.collect();

    // Then both stop with a checkpoint, and it is said how to go on
    assert_eq!(running.wait().unwrap().code(), Some(0), "{rest:?}");
    assert_eq!((ended(4), ended(5)), ("stopped".into(), "stopped".into()));
    assert_eq!(
        rest.last().unwrap(),
        "  all seeds   coordinator start --resume --seeds 2 --at-once 2 --run-dir run"
    );

    // When they are resumed, with a third one and the same command but for that
    let resumed = at.start(&["--resume", "--seeds", "3", "--at-once", "2"]);

    // Then all end, and the table is that of seeds one after another
    assert_eq!(resumed.code, 0, "{resumed:?}");
    assert_eq!([4, 5, 6].map(ended), ["finished"; 3].map(Value::from));
    for part in [
        "seed 4 |   resuming    at step ",
        "  seed 6      ",
        "  mean last   ",
        "coordinator compare run OTHER",
    ] {
        assert!(resumed.out.contains(part), "{part}: {}", resumed.out);
    }
    let threads = |seed: u32| {
        let config =
            fs::read_to_string(folder.path().join(format!("run/seed-{seed}/config.toml"))).unwrap();
        config
            .lines()
            .find(|line| line.starts_with("threads = "))
            .unwrap()
            .to_owned()
    };
    assert_eq!(threads(4), threads(5));
    assert_eq!(threads(4), threads(6));
}

#[test]
fn a_seed_that_is_killed_is_named_and_the_other_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    let (mut running, lines) = two_at_once(&at, "run");
    let address = fs::read(folder.path().join("run/seed-4/coordinator.json")).unwrap();
    let address: Value = serde_json::from_slice(&address).unwrap();

    // When one of the two coordinators is killed
    let pid = i32::try_from(address["pid"].as_i64().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let mut errors = BufReader::new(running.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let told = errors.find(|line| line.contains("SIGKILL")).unwrap();

    // Then that is said at once, while the other one still runs
    assert_eq!(
        told,
        "error: seed 4: its coordinator was killed by signal 9 (SIGKILL): see run/seed-4; go on by --resume"
    );
    assert!(running.try_wait().unwrap().is_none());
    terminate(&running);
    let rest: Vec<String> = lines.collect();
    assert_eq!(running.wait().unwrap().code(), Some(75), "{rest:?}");
    let summary = fs::read_to_string(folder.path().join("run/seed-5/summary.json")).unwrap();
    assert!(summary.contains("\"stopped\""), "{summary}");

    // And both can be gone on with
    let resumed = at.start(&["--resume", "--seeds", "2", "--at-once", "2"]);
    assert_eq!(resumed.code, 0, "{resumed:?}");
    assert!(resumed.out.contains("  mean last   "), "{}", resumed.out);
}

#[test]
fn a_dry_run_ends_as_a_start_would_and_makes_nothing() {
    // Given a data set
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    let names = || -> Vec<_> {
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let dry =
        |more: &[&str]| at.start(&[&["--data", "coco", "--dry-run", "--json"], more].concat());

    // When all is well
    let walked = dry(&[
        "--workers",
        "1",
        "--set",
        "run.snapshot_every_epochs=2",
        "--seeds",
        "3",
    ]);

    // Then one JSON object says what a run is, and of several seeds that they take as many times as long
    assert_eq!(walked.code, 0, "{walked:?}");
    let told: Value = serde_json::from_str(&walked.out).unwrap();
    assert_eq!(told["plan"]["steps"], 10);
    assert_eq!(told["plan"]["images"], 2 * TRAIN);
    assert_eq!(told["plan"]["checkpoints"], 1);
    assert_eq!(told["probe"]["rows"], VAL);
    assert_eq!(told["probe"]["alone"], Value::Null);
    let seconds = |what: &str| told["estimate"][what]["mean"].as_f64().unwrap();
    assert!((seconds("all_runs_seconds") - 3.0 * seconds("run_seconds")).abs() < 1e-9);
    assert_eq!(told["estimate"]["cost"], Value::Null);

    // When workers are someone else's, then nothing is measured, and that is said
    let external = dry(&[
        "--workers",
        "4",
        "--set",
        "run.launch=external",
        "--stop-after",
        "3",
    ]);
    assert_eq!(external.code, 0, "{external:?}");
    let told: Value = serde_json::from_str(&external.out).unwrap();
    assert_eq!(
        (&told["probe"], &told["estimate"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(told["plan"]["steps"], 3);
    assert!(told["checkpoint_bytes"].as_u64().unwrap() > 0);
    assert!(
        told["notes"][0]
            .as_str()
            .unwrap()
            .contains("nothing was measured"),
        "{told:#}"
    );

    // When something is wrong, then it ends as a start does
    let wrong = dry(&["--set", "train.epochs=none"]);
    assert_eq!(wrong.code, 64, "{wrong:?}");
    let nowhere = at.start(&["--data", "nowhere", "--dry-run"]);
    assert_eq!(nowhere.code, 64, "{nowhere:?}");
    fs::write(folder.path().join("coco/train2017/7.jpg"), "no picture").unwrap();
    let broken = dry(&["--workers", "1"]);
    assert_eq!((broken.code, broken.out.as_str()), (65, ""), "{broken:?}");
    assert!(
        broken.err.contains("coco/train2017/7.jpg"),
        "{}",
        broken.err
    );
    let resumed = at.start(&["--resume", "--dry-run"]);
    assert_eq!(resumed.code, 64, "{resumed:?}");

    // And nothing is left of any of them
    assert_eq!(names(), before);
}

#[test]
fn a_dry_run_that_is_stopped_leaves_nothing_either() {
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    let mut running = at
        .command(&[
            "start",
            "--dry-run",
            "--worker-binary",
            "./worker",
            "--device",
            "cpu",
            "--data",
            "coco",
            "--workers",
            "1",
            "--set",
            "train.global_batch=6",
            "--set",
            "train.micro_batch=3",
        ])
        .env("HGAT_FAKE_AWAIT_STOP_AT", "2")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let hidden = |name: &str| name.starts_with(".coordinator-dry-run-");
    let probe = || {
        let entries = fs::read_dir(folder.path()).unwrap();
        entries
            .map(|entry| entry.unwrap())
            .find(|entry| hidden(&entry.file_name().to_string_lossy()))
    };
    // The worker waits at its third step for a stop
    let two_steps = || {
        let events = fs::read_to_string(probe()?.path().join("all/events.jsonl")).ok()?;
        events.contains("\"step\":1").then_some(())
    };
    let give_up = std::time::Instant::now() + support::PATIENCE;
    while two_steps().is_none() {
        assert!(
            std::time::Instant::now() < give_up,
            "the probe does not get to its second step"
        );
        assert!(running.try_wait().unwrap().is_none(), "the probe ended");
    }
    let pid = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();

    let ended = running.wait_with_output().unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(75), "{err}");
    assert!(
        err.contains("SIGTERM") && err.contains("nothing is left of it"),
        "{err}"
    );
    assert!(probe().is_none());
}

struct Place<'a>(&'a Path);

#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl<'a> Place<'a> {
    fn new(folder: &'a Path) -> Self {
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

    fn start(&self, more: &[&str]) -> Ended {
        let start = [
            "start",
            "--run-dir",
            "run",
            "--worker-binary",
            "./worker",
            "--device",
            "cpu",
        ];
        let shape = [
            "--set",
            "train.global_batch=6",
            "--set",
            "train.micro_batch=3",
            "--set",
            "train.epochs=2",
        ];
        let shape = if more.contains(&"--resume") {
            &[][..]
        } else {
            &shape[..]
        };
        self.run(&[&start[..], shape, more].concat())
    }

    fn run(&self, arguments: &[&str]) -> Ended {
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

    fn command(&self, arguments: &[&str]) -> Command {
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

    fn summary(&self) -> Value {
        serde_json::from_slice(&fs::read(self.0.join("run/summary.json")).unwrap()).unwrap()
    }
}
