//! Workers that somebody else starts and nobody here can kill: one that was given up while it hung may wake.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::process::Stdio;

use support::disturbed::ledger;
use support::external::{External, address};
use support::{Place, Watched, signal};

#[test]
fn a_worker_that_wakes_when_the_run_has_gone_on_without_it_is_refused_and_leaves() {
    // Given a run of three workers and a spare, all started by somebody else
    let place = Place::with(36, 10);
    let settings = [
        "run.launch=external",
        "fault.timeout=2",
        "train.epochs=100000",
    ];
    let mut command = place.command("run", 3, &settings);
    let mut run = Watched::start(&mut command, place.path("run"));
    run.wait_until(|status| status["workers_joined"] == 0);
    let address = address(&place.path("run"));
    let heard = |name: &str| {
        External::join(&address, name, |join| {
            join.stderr(Stdio::piped());
        })
    };
    let workers = ["a", "b", "c"].map(heard);
    run.wait_for_step(2);
    let spare = heard("spare");
    run.wait_until(|status| status["workers_joined"] == 4 && status["phase"] == "training");

    // When one of them hangs for longer than fault.timeout, and the others have gone on with the spare
    let [sleeper, others @ ..] = workers;
    let before = run.status().unwrap()["generation"].as_u64().unwrap();
    signal("-STOP", sleeper.pid());
    let gone_on = run.wait_until(|status| {
        let ranks = status["workers"].as_array().unwrap().iter();
        let ranks = ranks.filter(|worker| worker["rank"].is_u64());
        status["generation"].as_u64() > Some(before)
            && status["phase"] == "training"
            && ranks.count() == 3
    });
    let step = gone_on["step"].as_u64().unwrap();
    signal("-CONT", sleeper.pid());

    // Then it is told so when it comes back and leaves by itself, and no generation is disturbed by it
    let (code, said) = sleeper.end();
    assert_eq!(code, Some(75), "{said}");
    let why = "error: the run goes on without this worker: a (rank 0) hangs";
    assert!(said.contains(why), "{said}");
    let later = run.wait_until(|status| status["step"].as_u64() >= Some(step + 6));
    assert_eq!(later["generation"], gone_on["generation"], "{later:#}");
    signal("-TERM", run.pid());
    let run = run.end();
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.err.contains("a (rank 0) hangs"), "{}", run.err);
    let ledger = ledger(&run.dir);
    assert_eq!(ledger["holds"], true, "{ledger:#}");
    for worker in others.into_iter().chain([spare]) {
        assert_eq!(worker.end().0, Some(0));
    }
}
