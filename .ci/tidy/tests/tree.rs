//! The checks, turned on this repository. Each failure lists file, line and what to do.

use std::fmt::Write;
use std::path::Path;

use tidy::tree::Tree;
use tidy::{Finding, borders, docs, length, map, pictures, places, sleep, unsafe_room};

/// Test files that may sleep, each with its reason.
const MAY_SLEEP: [(&str, &str); 4] = [
    (
        "worker/tests/fault_points.rs",
        "it stops a process for as long as a timeout",
    ),
    (
        "worker/tests/support/disturbed.rs",
        "it looks for files that other processes rename, and for the state of another process",
    ),
    (
        "worker/tests/support/mod.rs",
        "each time it asks what a run is at is a process of its own, which must leave the cores to the run",
    ),
    (
        "worker/tests/degraded.rs",
        "it lets another process run for a part of the time",
    ),
];

#[test]
fn docs_name_only_what_exists() {
    none(docs::check(&repository()));
}

#[test]
fn the_map_matches_the_tree() {
    none(map::check(&repository()));
}

#[test]
fn crates_do_not_know_what_they_must_not() {
    none(borders::check(&repository()));
}

#[test]
fn unsafe_code_stays_in_its_room_with_an_argument() {
    none(unsafe_room::check(&repository()));
}

#[test]
fn tests_do_not_sleep() {
    none(sleep::check(&repository(), &MAY_SLEEP));
}

#[test]
fn files_hold_one_idea() {
    none(length::check(&repository()));
}

#[test]
fn there_are_no_photographs() {
    none(pictures::check(&repository()));
}

#[test]
fn nothing_depends_on_the_machine_it_was_written_on() {
    none(places::check(&repository()));
}

fn repository() -> Tree {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let tree = Tree::read(&root).expect("the repository's files can be read");
    // A wrong root would let every check pass.
    assert!(
        tree.has("proto/hgat/v1") && tree.has(".ci/run"),
        "{} is not the repository",
        root.display()
    );
    tree
}

fn none(findings: Vec<Finding>) {
    let list = findings.iter().fold(String::new(), |mut list, finding| {
        let _ = writeln!(list, "  {finding}");
        list
    });
    assert!(findings.is_empty(), "{} findings:\n{list}", findings.len());
}
