//! A checkpoint is complete and verifiable, or invisible, whatever happens while it is written.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use safetensors::tensor::{Dtype, TensorView, serialize};
use sha2::{Digest, Sha256};

use super::*;

#[test]
fn a_commit_makes_it_visible_with_pointers_and_keeps_the_best_and_the_newest() {
    // Given four checkpoints, the second the best, when the newest two are to stay
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = open(folder.path(), 2);
    for (step, map) in [
        (10, Some(0.1)),
        (20, Some(0.612_34)),
        (30, None),
        (40, Some(0.3)),
    ] {
        write(&checkpoints, 1, step, 1.0)
            .unwrap()
            .commit(map)
            .unwrap();
    }

    // Then
    assert_eq!(
        names(folder.path()),
        [
            "best",
            "best-map-0.6123",
            "last",
            "step-00000020",
            "step-00000030",
            "step-00000040"
        ]
    );
    let state: Vec<_> = checkpoints
        .list()
        .unwrap()
        .iter()
        .map(|e| (e.step, e.map, e.last, e.best))
        .collect();
    assert_eq!(
        state,
        [
            (20, Some(0.612_34), false, true),
            (30, None, false, false),
            (40, Some(0.3), true, false)
        ]
    );
    assert_eq!(
        names(&folder.path().join("last")),
        [
            "manifest.json",
            "model.safetensors",
            "optimizer.safetensors",
            "state.json"
        ]
    );
    assert!(
        fs::read_link(folder.path().join("best-map-0.6123"))
            .unwrap()
            .ends_with("step-00000020")
    );

    // When its evaluation came later
    checkpoints.set_map(40, 0.7).unwrap();

    // Then the best moves
    assert!(names(folder.path()).contains(&"best-map-0.7000".to_owned()));
    assert!(checkpoints.list().unwrap().last().unwrap().best);
}

#[test]
fn what_is_read_is_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = open(folder.path(), 2);
    // Written backwards and twice, in pieces
    let mut writer = checkpoints.begin(3, 7).unwrap();
    let files = content(2.5, 700_000);
    for (name, bytes) in FILES.iter().zip(&files) {
        for (at, piece) in (0u64..)
            .zip(bytes.chunks(100_000))
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            writer.write(name, at * 100_000, piece).unwrap();
            writer.write(name, at * 100_000, piece).unwrap();
        }
        writer.end_file(name, &Sha256::digest(bytes)).unwrap();
    }
    writer.commit(None).unwrap();

    let mut read: HashMap<String, Vec<u8>> = HashMap::new();
    let mut ended = Vec::new();
    for chunk in checkpoints.reader(7).unwrap() {
        let chunk = chunk.unwrap();
        assert!(chunk.data.len() <= proto::CHUNK_BYTES);
        let file = read.entry(chunk.file.clone()).or_default();
        assert_eq!(file.len() as u64, chunk.offset);
        file.extend(chunk.data);
        if let Some(sha256) = chunk.sha256 {
            assert_eq!(sha256, Sha256::digest(file).to_vec());
            ended.push(chunk.file);
        }
    }
    assert_eq!(ended, FILES);
    for (name, bytes) in FILES.iter().zip(&files) {
        assert_eq!(&read[*name], bytes);
    }
    assert!(matches!(
        checkpoints.reader(8),
        Err(CheckpointError::NoSuchCheckpoint { step: 8, .. })
    ));
}

#[test]
fn bytes_that_are_not_what_they_should_be_are_refused_by_name_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = open(folder.path(), 2);
    let refused = |change: &dyn Fn(&mut Writer)| {
        let mut writer = write(&checkpoints, 1, 5, 1.0).unwrap();
        change(&mut writer);
        writer.commit(None).unwrap_err().to_string()
    };
    let replace = |writer: &mut Writer, name: &str, bytes: &[u8]| {
        fs::write(writer.folder_for_tests().join(name), bytes).unwrap();
        writer.end_file(name, &Sha256::digest(bytes)).unwrap();
    };

    let altered = refused(&|writer| writer.write("model.safetensors", 1001, &[9]).unwrap());
    assert!(
        altered.contains("model.safetensors: SHA-256 is"),
        "{altered}"
    );

    let diverged =
        refused(&|writer| replace(writer, "optimizer.safetensors", &weights(f32::NAN, 8)));
    assert!(
        diverged.contains("tensor heads.bias holds NaN at element 0"),
        "{diverged}"
    );

    let half = tensor_file("trunk.w", Dtype::F16, &[0x00, 0x3C, 0x00, 0xFC]);
    let infinite = refused(&|writer| replace(writer, "model.safetensors", &half));
    assert!(
        infinite.contains("tensor trunk.w holds inf at element 1"),
        "{infinite}"
    );

    let brain = tensor_file("trunk.w", Dtype::BF16, &[0x80, 0x3F, 0xC0, 0x7F]);
    let not_a_number = refused(&|writer| replace(writer, "model.safetensors", &brain));
    assert!(
        not_a_number.contains("holds NaN at element 1"),
        "{not_a_number}"
    );

    let text =
        refused(&|writer| replace(writer, "model.safetensors", b"<!DOCTYPE html> and so on"));
    assert!(text.contains("not a safetensors file"), "{text}");

    let cut = weights(1.0, 8);
    let cut = refused(&|writer| replace(writer, "model.safetensors", &cut[..cut.len() - 3]));
    assert!(cut.contains("ends within tensor"), "{cut}");

    let mut writer = checkpoints.begin(1, 5).unwrap();
    let unknown = writer
        .write("../../etc/passwd", 0, b"x")
        .unwrap_err()
        .to_string();
    assert!(
        unknown.contains("has no file \"../../etc/passwd\""),
        "{unknown}"
    );
    let large = writer
        .write("model.safetensors", u64::MAX - 1, b"xyz")
        .unwrap_err()
        .to_string();
    assert!(large.contains("over the limit"), "{large}");
    let incomplete = writer.commit(None).unwrap_err().to_string();
    assert!(
        incomplete.contains("model.safetensors of step 5 was not sent to its end"),
        "{incomplete}"
    );

    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_retry_changes_nothing_and_a_later_generation_replaces() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = open(folder.path(), 2);
    write(&checkpoints, 1, 10, 1.0)
        .unwrap()
        .commit(Some(0.5))
        .unwrap();
    let manifest = folder.path().join("step-00000010/manifest.json");
    let before = (
        fs::read(&manifest).unwrap(),
        fs::metadata(&manifest).unwrap().modified().unwrap(),
    );

    let retried = write(&checkpoints, 1, 10, 1.0)
        .unwrap()
        .commit(Some(0.5))
        .unwrap();
    assert_eq!(
        (
            fs::read(&manifest).unwrap(),
            fs::metadata(&manifest).unwrap().modified().unwrap()
        ),
        before
    );
    assert!(retried.path.ends_with("step-00000010"));

    write(&checkpoints, 2, 10, 4.0)
        .unwrap()
        .commit(Some(0.25))
        .unwrap();
    let entry = checkpoints.list().unwrap().remove(0);
    assert_eq!((entry.generation, entry.map), (2, Some(0.25)));
    checkpoints.verify(10).unwrap();
    assert_eq!(
        names(folder.path()),
        ["best", "best-map-0.2500", "last", "step-00000010"]
    );
}

#[test]
fn a_damaged_checkpoint_is_passed_over_saying_so_and_the_pointers_lead_to_the_one_before() {
    // Given three checkpoints, one altered, one with a manifest that is not one
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = open(folder.path(), 5);
    for (step, map) in [(10, 0.1), (20, 0.2), (30, 0.3)] {
        write(&checkpoints, 1, step, 1.0)
            .unwrap()
            .commit(Some(map))
            .unwrap();
    }
    let altered = folder.path().join("step-00000020/optimizer.safetensors");
    let mut bytes = fs::read(&altered).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&altered, bytes).unwrap();
    fs::write(folder.path().join("step-00000030/manifest.json"), "{").unwrap();

    // When
    let recovery = open(folder.path(), 5).recover().unwrap();

    // Then
    let found = recovery.checkpoint.unwrap();
    assert_eq!((found.step, found.last, found.best), (10, true, true));
    assert_eq!(recovery.damaged.len(), 2);
    assert!(
        recovery.damaged[0].contains("step-00000030/manifest.json: is not a manifest"),
        "{:?}",
        recovery.damaged
    );
    assert!(
        recovery.damaged[1].contains("optimizer.safetensors: SHA-256 is"),
        "{:?}",
        recovery.damaged
    );
    assert_eq!(
        names(folder.path()),
        [
            "best",
            "best-map-0.1000",
            "last",
            "step-00000010",
            "step-00000020.damaged",
            "step-00000030.damaged"
        ]
    );
}

#[test]
fn a_folder_without_a_manifest_is_invisible_and_swept_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    write(&open(folder.path(), 2), 1, 10, 1.0)
        .unwrap()
        .commit(None)
        .unwrap();
    for left in [
        "step-00000020",
        ".step-00000030-0.partial",
        ".step-00000005.removed",
    ] {
        fs::create_dir(folder.path().join(left)).unwrap();
        fs::write(
            folder.path().join(left).join("model.safetensors"),
            "half a fi",
        )
        .unwrap();
    }

    let reader = Checkpoints::read_only(folder.path(), NonZeroU32::MIN);
    assert_eq!(
        reader
            .list()
            .unwrap()
            .iter()
            .map(|entry| entry.step)
            .collect::<Vec<_>>(),
        [10]
    );
    let checkpoints = open(folder.path(), 2);

    assert_eq!(checkpoints.recover().unwrap().checkpoint.unwrap().step, 10);
    assert_eq!(names(folder.path()), ["last", "step-00000010"]);
}

/// The process that the tests below kill: commits checkpoints 20, 30, … into a folder, naming each when it is in place.
#[test]
fn child_that_commits() {
    let Ok(folder) = std::env::var("HGAT_TEST_CHECKPOINTS") else {
        return;
    };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let checkpoints = open(Path::new(&folder), 1);
    if let Some(call) = number("HGAT_TEST_END_BEFORE_CALL") {
        disk::fault::end_before_call(call);
    }
    let from = number("HGAT_TEST_FROM").unwrap_or(20);
    for step in (from..from + number("HGAT_TEST_SPAN").unwrap_or(i64::MAX / 2)).step_by(10) {
        let map = (step as f64).sin().abs();
        write(&checkpoints, 1, step as u64, map as f32)
            .unwrap()
            .commit(Some(map))
            .unwrap();
        println!("committed {step}");
    }
}

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

/// Runs in the namespace of the test above.
#[test]
fn child_on_a_small_disk() {
    let Ok(folder) = std::env::var("HGAT_TEST_SMALL_DISK") else {
        return;
    };
    let root = Path::new(&folder).join("checkpoints");
    let checkpoints = open(&root, 1);
    write(&checkpoints, 1, 10, 1.0)
        .unwrap()
        .commit(Some(0.1))
        .unwrap();
    assert!(checkpoints.space_warning(100_000).is_none());
    let warning = checkpoints.space_warning(2_000_000).unwrap();
    assert!(
        warning.contains("each checkpoint takes about 2 MB"),
        "{warning}"
    );

    let mut writer = checkpoints.begin(1, 20).unwrap();
    let error = writer
        .write("model.safetensors", 0, &vec![0; 4 << 20])
        .unwrap_err();
    let text = error.to_string();
    let CheckpointError::NoSpace {
        path,
        needed,
        free,
        errno,
        ..
    } = error
    else {
        panic!("{text}")
    };
    assert!(
        path.ends_with("model.safetensors") && needed >= 4 << 20 && free < 1 << 20,
        "{text}"
    );
    assert_eq!(errno, "ENOSPC");
    drop(writer);

    assert_eq!(
        names(&root),
        ["best", "best-map-0.1000", "last", "step-00000010"]
    );
    checkpoints.verify(10).unwrap();
    write(&checkpoints, 1, 30, 1.0)
        .unwrap()
        .commit(None)
        .unwrap();
    println!("the disk was full");
}

fn open(folder: &Path, keep: u32) -> Checkpoints {
    Checkpoints::open(folder, NonZeroU32::new(keep).unwrap()).unwrap()
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

/// A writer that has everything, to be committed.
fn write(
    checkpoints: &Checkpoints,
    generation: u64,
    step: u64,
    value: f32,
) -> Result<Writer, CheckpointError> {
    let mut writer = checkpoints.begin(generation, step)?;
    for (name, bytes) in FILES.iter().zip(content(value, 1000)) {
        writer.write(name, 0, &bytes)?;
        writer.end_file(name, &Sha256::digest(&bytes))?;
    }
    Ok(writer)
}

fn content(value: f32, count: usize) -> [Vec<u8>; 3] {
    [
        weights(value, count),
        weights(value + 1.0, count / 2),
        br#"{"format":1}"#.to_vec(),
    ]
}

/// A safetensors file with a matrix of ones before `count` times `value`.
fn weights(value: f32, count: usize) -> Vec<u8> {
    let (ones, values) = (
        1.0f32.to_le_bytes().repeat(4),
        value.to_le_bytes().repeat(count),
    );
    let tensors = [
        (
            "features.w",
            TensorView::new(Dtype::F32, vec![2, 2], &ones).unwrap(),
        ),
        (
            "heads.bias",
            TensorView::new(Dtype::F32, vec![count], &values).unwrap(),
        ),
    ];
    serialize(tensors, None).unwrap()
}

fn tensor_file(name: &str, dtype: Dtype, bytes: &[u8]) -> Vec<u8> {
    serialize(
        [(
            name,
            TensorView::new(dtype, vec![bytes.len() / 2], bytes).unwrap(),
        )],
        None,
    )
    .unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
