//! Several seeds of one experiment: one after another and side by side they are the same runs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use support::{Place, Run};

#[test]
fn seeds_side_by_side_end_with_the_bits_of_seeds_one_after_another() {
    let place = Place::with(30, 8);
    let seeds = ["--seeds", "2", "train.world=fixed"];
    let after = place.good("after", 2, &seeds);
    let beside = place.good("beside", 2, &[&seeds[..], &["--at-once", "2"]].concat());

    let of = |run: &Run, seed: u32| Run {
        dir: run.dir.join(format!("seed-{seed}")),
        code: run.code,
        out: String::new(),
        err: String::new(),
    };
    for seed in [0, 1] {
        let (after, beside) = (of(&after, seed), of(&beside, seed));
        assert_eq!(beside.summary()["ended"], "finished");
        assert_eq!(after.hashes(), beside.hashes(), "seed {seed}");
        assert_eq!(after.summary()["map"], beside.summary()["map"]);
    }
    assert_ne!(of(&after, 0).hashes(), of(&after, 1).hashes());
    // Each line of theirs says whose it is, and the end is the same table
    for part in ["seed 0 | finished: ", "seed 1 | finished: "] {
        assert!(beside.out.contains(part), "{part}: {}", beside.out);
    }
    let table = |run: &Run| {
        let text = run.out.replace(&run.dir.display().to_string(), "DIR");
        text[text.find("mAP of all seeds").unwrap()..].to_owned()
    };
    assert_eq!(table(&after), table(&beside));
}
