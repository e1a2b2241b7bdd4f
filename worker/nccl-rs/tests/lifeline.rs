//! A process's death, and its end in order, as who started it sees them: with a real process that is killed.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests, and a child that speaks to its test"
)]

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use nccl_rs::{FAREWELL, Lifeline};

/// What the child is to do.
const ROLE: &str = "NCCL_RS_LIFELINE";

/// Starts this test's binary again as the child of `test`; the other end of its lifeline.
fn child(test: &str, role: &str) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(ROLE, role)
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    (child, ours)
}

/// Waits until the child says this word, and keeps what it says after it flowing.
fn hear(child: &mut Child, word: &str) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(word)), "no {word}");
    std::thread::spawn(move || lines.for_each(drop));
}

fn all(mut stream: UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_killed_process_says_nothing_and_its_end_of_the_line_is_closed() {
    if std::env::var(ROLE).is_ok() {
        let _lifeline = Lifeline::take_standard_input().unwrap();
        println!("holding");
        loop {
            std::thread::park();
        }
    }
    let (mut process, line) = child(
        "a_killed_process_says_nothing_and_its_end_of_the_line_is_closed",
        "hold",
    );
    hear(&mut process, "holding");
    process.kill().unwrap();

    // Not yet waited for.
    assert!(all(line).is_empty());

    process.wait().unwrap();
}

#[test]
fn an_end_in_order_is_told() {
    if std::env::var(ROLE).is_ok() {
        Lifeline::take_standard_input().unwrap().farewell();
        println!("told");
        return;
    }
    let (mut process, line) = child("an_end_in_order_is_told", "tell");
    assert_eq!(all(line), [FAREWELL]);
    hear(&mut process, "told");
    assert!(process.wait().unwrap().success());
}

#[test]
fn the_rest_of_the_process_has_nothing_to_read_and_does_not_hold_the_line() {
    if std::env::var(ROLE).is_ok() {
        let lifeline = Lifeline::take_standard_input().unwrap();
        let left = std::fs::read_link("/proc/self/fd/0").unwrap();
        assert_eq!(left, std::path::Path::new("/dev/null"));
        drop(lifeline);
        println!("dropped");
        // Dropping it is no end of the process: the other end must not see one.
        std::thread::park();
    }
    let (mut process, line) = child(
        "the_rest_of_the_process_has_nothing_to_read_and_does_not_hold_the_line",
        "drop",
    );
    hear(&mut process, "dropped");
    line.set_nonblocking(true).unwrap();
    let error = (&line).read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    process.kill().unwrap();
    line.set_nonblocking(false).unwrap();
    assert!(all(line).is_empty());
    process.wait().unwrap();
}
