//! What the next start makes of a folder in which something is damaged or half written.

use super::*;

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
