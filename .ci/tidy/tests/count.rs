//! `.ci/count` turns the output of `cargo test` into one line that can be trusted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::process::Command;

const TWO_BINARIES: &str = "\
     Running unittests src/lib.rs (a)
running 3 tests
test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s
   Doc-tests a
test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";

#[test]
fn results_of_all_binaries_are_added_and_the_exit_code_is_kept() {
    let (lines, code) = count(TWO_BINARIES, 101);
    assert_eq!(lines.last().unwrap(), "14 passed, 1 failed, 1 skipped");
    assert_eq!(code, 101);
    assert!(
        lines.iter().any(|line| line.contains("Doc-tests a")),
        "output is shown: {lines:?}"
    );
}

#[test]
fn a_test_that_passed_over_is_skipped_and_what_passing_tests_print_is_left_out() {
    let output = "\
successes:

---- a stdout ----
noise
---- b stdout ----
skipped: HGAT_TEST_COCO is not set, so there are no pictures to read
skipped: a second line of the same test

successes:
    a
    b

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s";
    let (lines, code) = count(output, 0);
    assert_eq!(lines.last().unwrap(), "1 passed, 0 failed, 1 skipped");
    assert_eq!(code, 0);
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("skipped: HGAT_TEST_COCO")),
        "{lines:?}"
    );
    assert!(!lines.iter().any(|line| line == "noise"), "{lines:?}");
}

#[test]
fn a_binary_that_crashed_counts_as_failed() {
    let output = "     Running tests/x.rs (x)\nrunning 1 test\n     Running tests/y.rs (y)\n\
                  test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured";
    assert_eq!(count(output, 101).0.last().unwrap(), "1 passed, 1 failed");
}

#[test]
fn what_does_not_compile_is_no_success() {
    let (lines, code) = count("error: could not compile `worker`", 101);
    assert_eq!(lines.last().unwrap(), "0 passed, 1 failed");
    assert_eq!(code, 101);
}

#[test]
fn colours_do_not_hide_the_result() {
    let output = "test result: \x1b[32mok\x1b[0m. 3 passed; 0 failed; 0 ignored; 0 measured";
    assert_eq!(count(output, 0).0, [output, "3 passed, 0 failed"]);
}

/// What the count prints, and its exit code, for a command with this output and exit code.
fn count(output: &str, code: i32) -> (Vec<String>, i32) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../count");
    let command = format!("printf '%s\\n' \"$OUTPUT\"; exit {code}");
    let counted = Command::new(script)
        .args(["bash", "-c", &command])
        .env("OUTPUT", output)
        .output()
        .unwrap();
    let lines = String::from_utf8(counted.stdout)
        .unwrap()
        .lines()
        .map(String::from)
        .collect();
    (lines, counted.status.code().unwrap())
}
