//! `start`, alone and with `--resume`; `status` and `checkpoints` of its runs.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::place::{Place, said, terminate};
use crate::support::CLASSES;
use crate::support::worker::{expected_map, fates, spawn_all};

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

    // And so does whoever asks for its status now that nobody serves it
    let status = at.run(&["status", "--run-dir", "run"]);
    assert_eq!(status.code, 0, "{status:?}");
    let told = "stopped after 3 of 10 steps (--stop-after 3): resume with --resume\n";
    assert!(status.out.starts_with(told), "{}", status.out);
    assert!(
        status
            .out
            .contains("  progress    epoch 1 of 2, 3 of 10 steps\n"),
        "{}",
        status.out
    );
    let status = at.run(&["status", "--run-dir", "run", "--json"]);
    let status: Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(
        (&status["phase"], &status["step"], &status["exit_code"]),
        (&json!("stopped"), &json!(3), &json!(0))
    );

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
        finished.out.contains("resuming    after 3 steps from "),
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
        (summary["map"].as_f64().unwrap() - expected_map()).abs() < 1e-12,
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
        again
            .err
            .contains("this run has finished all that it was to do (2 epochs)"),
        "{}",
        again.err
    );
}

#[test]
fn sigterm_stops_a_run_with_a_checkpoint_and_status_answers_meanwhile() {
    // Given a run whose worker waits at its third step for a stop
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    let (mut running, lines) = at.start_until_step_2(&["--data", "coco"]);

    // When it is asked, and told to end
    let status = at.run(&["status", "--run-dir", "run", "--json"]);
    let in_use = at.start(&["--resume"]);
    terminate(&running);
    let rest: Vec<String> = lines.collect();

    // Then it was training, in use by one coordinator, and ends with a checkpoint to go on from
    let status: Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(
        (&status["phase"], &status["workers"][0]["worker_id"]),
        (&json!("training"), &json!("worker-0"))
    );
    let silence = status["workers"][0]["heartbeat_remaining_millis"].as_u64();
    assert!(silence.is_some_and(|left| left <= 5000), "{status}");
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
    let mut lines = said(&mut running);
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
fn best_leads_to_the_best_checkpoint_that_there_is_and_a_best_epoch_without_one_is_told() {
    // Given a run whose epochs are equally good, so that the first is best, and which keeps the state of the second alone
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    let rarely = ["--set", "run.snapshot_every_epochs=2"];
    let run = at.start(&[&["--data", "coco", "--workers", "1"][..], &rarely].concat());

    // Then
    assert_eq!(run.code, 0, "{run:?}");
    let best = fs::read_link(folder.path().join("run/checkpoints/best")).unwrap();
    assert_eq!(best, Path::new("step-00000010"));
    let summary = at.summary();
    assert_eq!(
        (&summary["best_epoch"], &summary["best_checkpoint_epoch"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(summary["best_has_checkpoint"], false);
    let path = summary["best_checkpoint"].as_str().unwrap();
    assert!(path.ends_with("step-00000010"), "{path}");
    let told = "of epoch 2: epoch 1, the best, has no checkpoint";
    assert!(run.out.contains(told), "{}", run.out);
}

#[test]
fn a_line_lost_from_the_events_is_missed_by_a_replay() {
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    let run = at.start(&["--data", "coco", "--workers", "1"]);
    assert_eq!(run.code, 0, "{run:?}");
    let events = folder.path().join("run/events.jsonl");
    assert_eq!(at.run(&["replay", "run/events.jsonl"]).code, 0);

    // When a line is lost about which nothing was decided
    let text = fs::read_to_string(&events).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    let launched = lines
        .iter()
        .position(|line| line.contains("\"launched\""))
        .unwrap();
    lines.remove(launched);
    fs::write(&events, lines.join("\n") + "\n").unwrap();

    // Then
    let replayed = at.run(&["replay", "run/events.jsonl"]);
    assert_eq!(replayed.code, 65, "{replayed:?}");
    assert!(
        replayed.err.contains("lines are missing"),
        "{}",
        replayed.err
    );
}

#[test]
fn more_workers_to_go_on_with_than_there_are_is_refused_naming_both_keys() {
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    for workers in [&["--workers", "2"][..], &[]] {
        let fewest = ["--set", "run.min_workers=3"];
        let refused = at.start(&[&["--data", "coco"], workers, &fewest].concat());
        assert_eq!(refused.code, 64, "{refused:?}");
        let count = if workers.is_empty() { 1 } else { 2 };
        for part in [
            "run.min_workers = 3 (--set)".to_owned(),
            format!("run.workers = {count}"),
        ] {
            assert!(refused.err.contains(&part), "{part}: {}", refused.err);
        }
    }
    assert!(!folder.path().join("run/logs").exists());
}
