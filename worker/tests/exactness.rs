//! What a run computes does not depend on what it runs on: not on the number of workers, not on stops, not on luck.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use support::{Place, distance};

/// 36 training pictures: three steps an epoch of six micro-batches of two.
fn place() -> Place {
    Place::with(36, 10)
}

#[test]
fn one_step_is_the_same_at_one_two_and_three_workers() {
    let place = place();
    for (precision, bound) in [("float64", 1e-12), ("float32", 1e-5)] {
        // The clip must not turn a last bit into another branch: it is far from the norm here.
        let set = format!("train.precision={precision}");
        let more = ["--stop-after", "1", set.as_str(), "train.clip_norm=1000"];
        let states: Vec<_> = [1, 2, 3]
            .map(|workers| {
                place
                    .good(&format!("{precision}-{workers}"), workers, &more)
                    .tensors()
            })
            .into();

        for (workers, state) in [(2, &states[1]), (3, &states[2])] {
            let (distance, name) = distance(state, &states[0]);
            println!("{precision}: {workers} workers differ from one by {distance:.1e} ({name})");
            assert!(
                distance <= bound,
                "{precision}, {workers} workers: {name} differs by {distance}"
            );
        }
    }
}

#[test]
fn replicas_are_equal_to_the_bit_after_every_step_and_a_seed_gives_one_result() {
    let place = place();
    // Given three workers that compare a hash of their whole state after every step
    let more = ["fault.sentinel_steps=1"];

    let (one, two) = (place.good("one", 3, &more), place.good("two", 3, &more));
    let other = place.good("other", 3, &["fault.sentinel_steps=1", "run.seed=1"]);

    assert_eq!(one.hashes(), two.hashes());
    assert_ne!(one.hashes(), other.hashes());
    let events = std::fs::read_to_string(one.dir.join("events.jsonl")).unwrap();
    let hashes = events
        .lines()
        .filter(|line| line.contains("state_hash"))
        .count();
    assert!(
        hashes >= 3 * 6,
        "every rank told its hash after each of six steps: {hashes}"
    );
}

#[test]
fn a_run_stopped_anywhere_and_resumed_ends_with_the_same_bits() {
    let place = place();
    let whole = place.good("whole", 2, &[]).hashes();

    // In mid-epoch, just before and at and after the epoch's end (3 steps), and twice in one epoch
    for (name, stops) in [
        ("middle", vec!["1"]),
        ("before", vec!["2"]),
        ("at", vec!["3"]),
        ("twice", vec!["4", "5"]),
    ] {
        place.good(name, 2, &["--stop-after", stops[0]]);
        for stop in &stops[1..] {
            place.good(name, 2, &["--resume", "--stop-after", stop]);
        }
        let resumed = place.good(name, 2, &["--resume"]);

        assert_eq!(resumed.hashes(), whole, "stopped {name}");
        let summary = resumed.summary();
        assert_eq!(summary["steps"], 6, "{name}");
        assert_eq!(
            summary["evaluations"].as_array().unwrap().len(),
            2,
            "{name}: one evaluation an epoch"
        );
    }
}

#[test]
fn every_variant_trains_on_two_ranks_and_a_frozen_trunk_too() {
    let place = Place::with(24, 6);
    for graph in ["none", "fc"] {
        let set = format!("model.graph={graph}");
        place.good(graph, 2, &[set.as_str(), "--stop-after", "2"]);
    }
    place.good(
        "frozen",
        2,
        &[
            "train.freeze_trunk=true",
            "train.optimizer=adamw",
            "--stop-after",
            "2",
        ],
    );
}

#[test]
fn eight_workers_on_this_machine_finish_a_run() {
    let place = Place::with(64, 16);
    let more = [
        "train.epochs=1",
        "train.global_batch=32",
        "train.micro_batch=4",
        "data.size=64",
        "data.resize=72",
    ];

    let run = place.good("eight", 8, &more);

    assert_eq!(run.summary()["ended"], "finished");
    assert_eq!(run.summary()["steps"], 2);
}
