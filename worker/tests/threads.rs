//! Threads of workers that someone else starts: within the processors of the machine where they are, which the
//! coordinator does not know.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;

use support::external::{External, address};
use support::{Place, Watched, signal};

/// A worker as if on a machine of so many processors.
fn on_a_machine_of(processors: usize, address: &str) -> External {
    External::join(address, &format!("of-{processors}"), |join| {
        join.env("HGAT_PROCESSORS", processors.to_string());
    })
}

/// How many threads of a worker decode, by their names.
fn decoding(worker: &External) -> usize {
    let threads = fs::read_dir(format!("/proc/{}/task", worker.pid())).unwrap();
    let names =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("decode-")).count()
}

#[test]
fn a_worker_that_someone_else_starts_decodes_on_what_its_own_machine_leaves() {
    // Given a run of one compute thread a worker, whose workers are started by hand on machines that differ
    let place = Place::with(24, 4);
    let settings = ["run.launch=external", "train.epochs=100000"];
    let mut command = place.command("run", 2, &settings);
    let mut run = Watched::start(&mut command, place.path("run"));
    run.wait_until(|status| status["workers_joined"] == 0);
    let address = address(&place.path("run"));

    // When they train
    let workers = [1, 2].map(|processors| on_a_machine_of(processors, &address));
    run.wait_for_step(1);
    let decoding = workers.each_ref().map(decoding);
    let status = run.wait_until(|status| status["workers_joined"] == 2);
    signal("-INT", run.pid());
    let run = run.end();

    // Then the one of a single processor has no thread beside that which computes, and the other has what is left of its two
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    assert_eq!(decoding, [0, processors.min(2) - 1], "{status:#}");
    assert!(
        run.out.contains("1 thread each (train.threads)"),
        "{run:#?}"
    );
}
