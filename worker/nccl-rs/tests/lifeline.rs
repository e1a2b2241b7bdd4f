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

/// The signals that a thread of this process blocks, as a set of bits.
fn blocked_by(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let status = tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok())
        .find(|status| status.starts_with(&format!("Name:\t{name}\n")));
    let status = status.unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
}

/// A handler that writes to a descriptor of the process would find another table of them there.
#[test]
fn the_thread_that_holds_the_line_takes_no_signal_of_the_process() {
    if std::env::var(ROLE).is_ok() {
        let lifeline = Lifeline::take_standard_input().unwrap();
        println!("blocked {:x}", blocked_by("lifeline"));
        lifeline.farewell();
        return;
    }
    let (mut process, line) = child(
        "the_thread_that_holds_the_line_takes_no_signal_of_the_process",
        "hold",
    );
    let said = std::io::read_to_string(process.stdout.take().unwrap()).unwrap();
    process.wait().unwrap();
    drop(line);
    let blocked = said.split_once("blocked ").unwrap().1;
    let blocked = u64::from_str_radix(blocked.lines().next().unwrap(), 16).unwrap();
    let blocks = |signal: u32| blocked >> (signal - 1) & 1 == 1;
    let (terminate, interrupt, child_ended) = (15, 2, 17);
    assert!(
        [terminate, interrupt, child_ended].map(blocks) == [true; 3],
        "{said}"
    );
    // But that which asks every thread for its stack: the seventh after the first that is free on Linux with glibc.
    assert!(!blocks(34 + 7), "{said}");
}
