//! `start --seeds` and `compare`.

use std::fs;

use serde_json::Value;

use crate::place::{Place, SHAPE, START, terminate};

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
