//! What a commit leaves on disk, and what it refuses.

use std::collections::HashMap;

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
