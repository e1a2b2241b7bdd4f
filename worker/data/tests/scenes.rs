//! Drawn scenes: the same bytes for any number of threads, a data set like any other, and a folder that is whole or not
//! there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod given;

use data::coco::{DataPaths, Dataset, Options};
use data::files::{CheckOptions, OnBadImage, check_files};
use data::jpeg::{decode, probe};
use data::scenes::{SceneError, SceneSet, Summary, draw};
use given::files;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

const SMALL: SceneSet = SceneSet {
    train: 160,
    val: 80,
    seed: 1,
    scale: 0.1,
    threads: NonZeroUsize::new(2).unwrap(),
};

fn drawn(set: &SceneSet, dir: &Path) -> Summary {
    draw(set, dir, &|_| ()).unwrap()
}

#[test]
fn a_seed_gives_the_same_bytes_for_any_number_of_threads_and_another_seed_does_not() {
    // given
    let dir = tempfile::tempdir().unwrap();
    let set = |threads, seed| SceneSet {
        train: 40,
        val: 20,
        seed,
        threads: NonZeroUsize::new(threads).unwrap(),
        ..SMALL
    };
    // when
    let sets = [(1, 1), (2, 1), (5, 1), (2, 2)];
    let [one, two, five, other] = sets.map(|(threads, seed)| {
        let dir = dir.path().join(format!("{threads}-{seed}"));
        drawn(&set(threads, seed), &dir);
        files(&dir)
    });
    // then
    assert_eq!(one.len(), 40 + 20 + 2 + 1);
    assert!(one == two && one == five);
    let jpeg = |path: &&PathBuf| path.extension().is_some_and(|suffix| suffix == "jpg");
    assert!(one.keys().filter(jpeg).all(|path| one[path] != other[path]));
}

#[test]
fn a_picture_does_not_depend_on_how_many_others_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let few = SceneSet {
        train: 10,
        val: 3,
        ..SMALL
    };
    drawn(&few, &dir.path().join("few"));
    drawn(&SMALL, &dir.path().join("many"));
    for number in 1..=10 {
        let name = format!("train2017/{number:012}.jpg");
        let read = |set: &str| std::fs::read(dir.path().join(set).join(&name)).unwrap();
        assert_eq!(read("few"), read("many"), "{name}");
    }
}

#[test]
fn a_set_is_a_data_set_with_every_class_in_both_splits_and_no_picture_in_common() {
    // given
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    let summary = drawn(&SMALL, &root);
    // when
    let dataset = Dataset::open(&DataPaths::root(&root), &Options::default()).unwrap();
    // then
    assert_eq!((dataset.classes.len(), dataset.groups.len()), (80, 12));
    let mut pictures = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for (split, summary, count) in [
        (&dataset.train, summary.train, 160),
        (&dataset.val, summary.val, 80),
    ] {
        assert_eq!((split.samples.len(), summary.pictures), (count, count));
        assert_eq!(split.warnings, []);
        let options = CheckOptions {
            on_bad_image: OnBadImage::Error,
            threads: 2,
            cache: None,
        };
        assert_eq!(check_files(split, &options).unwrap().bad, []);
        let shown: BTreeSet<u16> = split
            .samples
            .iter()
            .flat_map(|s| s.labels.to_vec())
            .collect();
        assert_eq!(shown, (0..80).collect());
        let labels: usize = split.samples.iter().map(|s| s.labels.len()).sum();
        assert_eq!(summary.labels_per_picture, labels as f64 / count as f64);
        assert!(
            (2.0..5.0).contains(&summary.labels_per_picture),
            "{summary:?}"
        );
        for (sample, id) in split.samples.iter().zip(0u32..) {
            assert!(ids.insert(sample.image_id), "id {}", sample.image_id);
            let bytes = std::fs::read(split.image_path(id).unwrap()).unwrap();
            let (image, warning) = decode(&bytes).unwrap();
            assert_eq!(warning, None);
            assert!(
                pictures.insert(image.pixels),
                "{} is there twice",
                sample.file_name
            );
        }
    }
}

#[test]
fn some_pictures_are_gray_and_some_are_tiny() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    drawn(&SMALL, &root);
    let (mut gray, mut sizes) = (0, BTreeMap::new());
    for (path, bytes) in files(&root) {
        if path.extension().is_some_and(|suffix| suffix == "jpg") {
            let header = probe(&bytes).unwrap();
            gray += u32::from(header.components == 1);
            *sizes.entry((header.width, header.height)).or_insert(0) += 1;
        }
    }
    assert!((2..=4).contains(&gray), "{gray} of 240");
    assert!(sizes.len() > 5, "{sizes:?}");
    assert!((1..=4).contains(&sizes[&(72, 52)]), "{sizes:?}");
}

#[test]
fn boxes_and_outlines_lie_inside_their_picture() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    drawn(&SMALL, &root);
    let text = std::fs::read(root.join("annotations/instances_train2017.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let sizes: BTreeMap<u64, (f64, f64)> = json["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| {
            let side = |key: &str| image[key].as_f64().unwrap();
            (
                image["id"].as_u64().unwrap(),
                (side("width"), side("height")),
            )
        })
        .collect();
    for annotation in json["annotations"].as_array().unwrap() {
        let (w, h) = sizes[&annotation["image_id"].as_u64().unwrap()];
        let numbers = |value: &serde_json::Value| -> Vec<f64> {
            let list = value.as_array().unwrap().iter();
            list.map(|v| v.as_f64().unwrap()).collect()
        };
        let &[x, y, width, height] = numbers(&annotation["bbox"]).as_slice() else {
            panic!("{annotation}")
        };
        let inside = x >= 0.0 && y >= 0.0 && x + width <= w + 0.011 && y + height <= h + 0.011;
        assert!(inside && width > 0.0 && height > 0.0, "{annotation}");
        let outline = numbers(&annotation["segmentation"][0]);
        assert!(outline.len() >= 6 && outline.len() % 2 == 0);
        for point in outline.chunks(2) {
            assert!((0.0..=w).contains(&point[0]) && (0.0..=h).contains(&point[1]));
        }
        assert!(annotation["area"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_complete_folder_is_used_again_untouched_and_progress_counts_each_picture() {
    // given
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    let set = SceneSet {
        train: 7,
        val: 4,
        ..SMALL
    };
    let progress = RefCell::new(Vec::new());
    let first = draw(&set, &root, &|done| progress.borrow_mut().push(done)).unwrap();
    assert!(!first.reused);
    assert_eq!(*progress.borrow(), (1..=11).collect::<Vec<_>>());
    let changed = |path: &Path| std::fs::metadata(path).unwrap().modified().unwrap();
    let picture = root.join("val2017/000000000008.jpg");
    let before = changed(&picture);
    // when
    let again = draw(&set, &root, &|_| panic!("nothing is to be drawn")).unwrap();
    // then
    assert_eq!(
        again,
        Summary {
            reused: true,
            ..first
        }
    );
    assert_eq!(changed(&picture), before);
    // and nothing is left beside it
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn anything_else_in_the_place_is_refused_and_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    let set = SceneSet {
        train: 5,
        val: 4,
        ..SMALL
    };
    let refused = |set: &SceneSet, part: &str| {
        let before = files(&root);
        let error = draw(set, &root, &|_| ()).unwrap_err();
        assert!(matches!(error, SceneError::Occupied { .. }), "{error}");
        assert!(error.to_string().contains(part), "{part} is not in {error}");
        assert_eq!(files(&root), before);
    };
    // given files of someone else
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("thesis.txt"), "x").unwrap();
    refused(&set, "no readable scenes.json");
    std::fs::remove_file(root.join("thesis.txt")).unwrap();
    // given a set of other parameters, in what was an empty folder
    drawn(&set, &root);
    refused(&SceneSet { seed: 2, ..set }, "other parameters");
    refused(&SceneSet { train: 6, ..set }, "other parameters");
    // given a set that lost a picture, or the annotations
    let picture = root.join("train2017/000000000002.jpg");
    let bytes = std::fs::read(&picture).unwrap();
    std::fs::remove_file(&picture).unwrap();
    refused(&set, "holds 4 pictures");
    std::fs::write(&picture, bytes).unwrap();
    std::fs::remove_file(root.join("annotations/instances_val2017.json")).unwrap();
    refused(&set, "is missing");
}

#[test]
fn what_a_process_that_died_left_behind_is_cleared_and_one_that_lives_is_waited_for() {
    // given
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    let set = SceneSet {
        train: 3,
        val: 2,
        ..SMALL
    };
    let draft = dir.path().join(".set.drawing");
    std::fs::create_dir_all(draft.join("train2017")).unwrap();
    std::fs::write(draft.join("train2017/000000000099.jpg"), "half").unwrap();
    let lock = std::fs::File::create(draft.join(".lock")).unwrap();
    lock.lock().unwrap();
    // when the other one lives
    let error = draw(&set, &root, &|_| ()).unwrap_err();
    assert!(matches!(error, SceneError::Busy { .. }), "{error}");
    assert!(!root.exists());
    // when it died
    drop(lock);
    drawn(&set, &root);
    // then
    assert_eq!(files(&root).len(), 3 + 2 + 2 + 1);
    assert!(!draft.exists());
}

#[test]
fn numbers_without_a_meaning_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (set, part) in [
        (SceneSet { train: 0, ..SMALL }, "train is 0"),
        (SceneSet { val: 0, ..SMALL }, "val is 0"),
        (
            SceneSet {
                scale: 0.0,
                ..SMALL
            },
            "scale is 0",
        ),
        (
            SceneSet {
                scale: 1.5,
                ..SMALL
            },
            "scale is 1.5",
        ),
        (
            SceneSet {
                scale: f32::NAN,
                ..SMALL
            },
            "scale is NaN",
        ),
    ] {
        let text = draw(&set, &dir.path().join("set"), &|_| ())
            .unwrap_err()
            .to_string();
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
