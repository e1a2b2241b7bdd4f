//! A checkpoint is complete and verifiable, or invisible, whatever happens while it is written.

mod commits;
mod cut_short;
mod recovery;

use safetensors::tensor::{Dtype, TensorView, serialize};
use sha2::{Digest, Sha256};

use super::*;

/// The process that the tests in `cut_short` end and kill: commits checkpoints 20, 30, … into a folder, naming each when
/// it is in place.
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

/// Runs in the namespace of the test of a full disk in `cut_short`.
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

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
