//! `start --seeds` and `compare`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use coordinator::summary::DataDigests;
use serde_json::Value;

use crate::place::{Place, SHAPE, START, said, terminate};
use crate::support;

#[test]
fn seeds_are_trained_one_after_another_stopped_resumed_and_compared() {
    // Given an experiment of three seeds that is stopped in its first
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    let three = ["--data", "coco", "--workers", "1", "--seeds", "3"];
    let first = [&three[..], &["--set", "run.seed=4"]].concat();
    let (mut running, lines) = at.start_until_step_2(&first);
    terminate(&running);
    let rest: Vec<String> = lines.collect();

    // Then no other seed begins, and it is said how to go on
    assert_eq!(running.wait().unwrap().code(), Some(0), "{rest:?}");
    assert_eq!(
        rest.last().unwrap(),
        "  all seeds   coordinator start --resume --seeds 3 --run-dir run"
    );
    assert!(!folder.path().join("run/seed-5").exists());
    let again = at.start(&three);
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
        "resuming    after ",
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
    let one = [
        "--run-dir",
        "other",
        "--data",
        "coco",
        "--workers",
        "1",
        "--seeds",
        "1",
    ];
    let none = ["--set", "model.graph=none", "--quiet"];
    let worker = &START[3..];
    let other = at.run(&[&START[..1], &one, worker, &SHAPE, &none].concat());
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

#[test]
fn runs_on_other_labels_are_another_experiment_and_on_the_same_elsewhere_are_not() {
    // Given a run, one of another seed whose data set lies elsewhere, and a third that was trained on other labels
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    for (run_dir, seed) in [("first", "0"), ("second", "1"), ("third", "2")] {
        let seed = format!("run.seed={seed}");
        let one = ["--run-dir", run_dir, "--data", "coco", "--workers", "1"];
        let seed = ["--set", &seed, "--quiet"];
        let ended = at.run(&[&START[..1], &one, &START[3..], &SHAPE, &seed].concat());
        assert_eq!(ended.code, 0, "{ended:?}");
    }
    let change = |file: &str, from: &str, to: &str| {
        let file = folder.path().join(file);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from}: {text}");
        fs::write(&file, text.replace(from, to)).unwrap();
    };
    change("second/config.toml", "coco\"", "moved\"");
    let dataset = support::dataset();
    let known = DataDigests::of(&dataset);
    let mut other = dataset.clone();
    other.train.image_dir = "elsewhere".into();
    assert_eq!(DataDigests::of(&other), known);
    let labels = &mut other.train.samples[0].labels;
    *labels = if labels.is_empty() {
        [0].into()
    } else {
        [].into()
    };
    let other = DataDigests::of(&other);
    assert!(other.val == known.val && other.train != known.train);
    let summary = fs::read(folder.path().join("third/summary.json")).unwrap();
    let summary: Value = serde_json::from_slice(&summary).unwrap();
    let of_third = summary["data"]["train"].as_str().unwrap();
    change("third/summary.json", of_third, &other.train);

    // When they are compared
    let compared = at.run(&["compare", "first", "second", "third", "--json"]);

    // Then the first two are seeds of one experiment, and the third is another, by what it was trained on
    assert_eq!(compared.code, 0, "{compared:?}");
    let found: Value = serde_json::from_str(&compared.out).unwrap();
    let seeds = |side: usize| found["sides"][side]["last"]["seeds"].as_u64();
    assert_eq!((seeds(0), seeds(1), seeds(2)), (Some(2), Some(1), None));
    assert_eq!(
        found["differs"][0]["key"],
        "pictures and labels of training"
    );
    assert_eq!(found["differs"].as_array().unwrap().len(), 1, "{found}");
}

#[test]
fn seeds_that_end_early_because_they_get_no_better_are_finished_and_the_next_follow() {
    for at_once in ["1", "2"] {
        // Given workers that score alike after every epoch
        let folder = tempfile::tempdir().unwrap();
        let at = Place::new(folder.path());
        let seeds = ["--workers", "1", "--seeds", "2", "--at-once", at_once];
        let early = [
            "--set",
            "train.epochs=90",
            "--set",
            "train.early_stopping=1",
        ];

        // When two seeds are to end after one epoch that is no better
        let run = at.start(&[&["--data", "coco"], &seeds[..], &early].concat());

        // Then both do, and are all there is
        assert_eq!(run.code, 0, "{run:?}");
        assert!(run.out.contains("mAP of all seeds"), "{}", run.out);
        for seed in [0, 1] {
            let path = folder.path().join(format!("run/seed-{seed}/summary.json"));
            let summary: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            assert_eq!(summary["ended"], "finished", "{summary}");
            let reason = summary["reason"].as_str().unwrap();
            assert!(reason.starts_with("finished early after "), "{reason}");
        }
    }
}

/// Two seeds at once, begun and both at their second step, where their workers wait for a stop; and what is yet to be read.
fn two_at_once(at: &Place<'_>) -> (Child, impl Iterator<Item = String> + use<>) {
    let seeds = [
        "--data",
        "coco",
        "--workers",
        "1",
        "--seeds",
        "2",
        "--at-once",
        "2",
        "--set",
        "run.seed=4",
    ];
    let mut running = at
        .command(&[&START[..], &SHAPE[..], &seeds].concat())
        .env("HGAT_FAKE_AWAIT_STOP_AT", "2")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = said(&mut running);
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

#[test]
fn seeds_at_once_are_stopped_together_and_resumed() {
    // Given two seeds that train side by side
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    let (mut running, lines) = two_at_once(&at);
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
        "seed 4 |   resuming    after ",
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
    let (mut running, lines) = two_at_once(&at);
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
