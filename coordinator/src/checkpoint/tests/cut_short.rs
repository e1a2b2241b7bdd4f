//! Writing that is cut short: by an end before any call, a kill at any instant, a full disk.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

#[test]
fn an_end_before_any_system_call_leaves_a_last_that_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let mut ends = 0;
    loop {
        // Given a committed checkpoint and the same step once more, of an older generation
        fs::remove_dir_all(folder.path()).unwrap();
        let checkpoints = open(folder.path(), 1);
        write(&checkpoints, 0, 10, 1.0)
            .unwrap()
            .commit(Some(0.01))
            .unwrap();
        write(&checkpoints, 0, 20, 1.0)
            .unwrap()
            .commit(Some(0.5))
            .unwrap();

        // When a process replaces it, commits another and ends before its call of that number
        let status = child(folder.path())
            .env("HGAT_TEST_END_BEFORE_CALL", ends.to_string())
            .env("HGAT_TEST_SPAN", "20")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();

        // Then
        assert_whole(folder.path(), 20, &format!("ended before call {ends}"));
        if status.success() {
            break;
        }
        assert_eq!(status.code(), Some(disk::fault::EXIT), "before call {ends}");
        ends += 1;
    }
    assert!(ends > 40, "only {ends} calls were seen");
}

#[test]
fn a_kill_at_any_instant_leaves_a_last_that_verifies_and_loses_nothing_that_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    write(&open(folder.path(), 1), 1, 10, 1.0)
        .unwrap()
        .commit(Some(0.01))
        .unwrap();
    let mut random = u64::from(std::process::id());
    let mut committed = 10u64;
    for kill in 0..25 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let (lines, delay) = (
            (random >> 33) % 3 + 1,
            Duration::from_micros((random >> 40) % 15_000),
        );
        let mut child = child(folder.path())
            .env("HGAT_TEST_FROM", (committed + 10).to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let mut step_of = |line: String| {
            line.rsplit_once("committed ")
                .and_then(|(_, step)| step.parse().ok())
        };
        for step in output
            .by_ref()
            .filter_map(&mut step_of)
            .take(lines as usize)
        {
            committed = step;
        }
        // The instant is what the test is about; nothing is waited for.
        let instant = Instant::now() + delay;
        while Instant::now() < instant {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        for step in output.filter_map(&mut step_of) {
            committed = step;
        }
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        committed = assert_whole(folder.path(), committed, &format!("kill {kill}"));
    }
}

#[test]
fn a_full_disk_is_an_answer_with_path_and_bytes_and_older_checkpoints_stay() {
    // Given a file system of 1 MiB of its own
    let folder = tempfile::tempdir().unwrap();
    let user = if rustix::process::geteuid().is_root() {
        "-m"
    } else {
        "-rm"
    };
    let mount = format!(
        "mount -t tmpfs -o size=1m tmpfs '{}'",
        folder.path().display()
    );
    let namespace = |script: String| {
        let mut command = Command::new("unshare");
        command.args([user, "sh", "-c", &script]);
        command
    };
    let possible = namespace(mount.clone())
        .output()
        .is_ok_and(|output| output.status.success());
    if !possible {
        println!("skipped: this machine lets a test mount no tmpfs (unshare {user})");
        return;
    }

    // When the child fills it there
    let exe = std::env::current_exe().unwrap();
    let output = namespace(format!(
        "{mount} && exec '{}' --exact checkpoint::tests::child_on_a_small_disk --nocapture",
        exe.display()
    ))
    .env("HGAT_TEST_SMALL_DISK", folder.path())
    .output()
    .unwrap();

    // Then its own checks held
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("the disk was full"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn child(folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "checkpoint::tests::child_that_commits",
        "--nocapture",
    ]);
    command.env("HGAT_TEST_CHECKPOINTS", folder);
    command
}

/// What holds at every moment: before the next start (as a reader sees it) and after. Gives the newest step.
fn assert_whole(folder: &Path, at_least: u64, when: &str) -> u64 {
    let reader = Checkpoints::read_only(folder, NonZeroU32::MIN);
    let before = reader.list().unwrap();
    let last = before
        .iter()
        .find(|entry| entry.last)
        .unwrap_or_else(|| panic!("{when}: no last"));
    reader
        .verify(last.step)
        .unwrap_or_else(|error| panic!("{when}: {error}"));
    for entry in &before {
        reader
            .verify(entry.step)
            .unwrap_or_else(|error| panic!("{when}: {error}"));
    }
    let checkpoints = open(folder, 1);
    let recovery = checkpoints.recover().unwrap();
    assert_eq!(recovery.damaged, [""; 0], "{when}");
    let found = recovery.checkpoint.unwrap();
    assert!(
        found.last && found.step >= at_least,
        "{when}: {found:?}, committed was {at_least}"
    );
    assert!(
        names(folder).iter().all(|name| !name.starts_with('.')),
        "{when}: {:?}",
        names(folder)
    );
    found.step
}
