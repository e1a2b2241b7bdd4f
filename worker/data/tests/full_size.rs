//! A set of COCO 2014's shape, here a fiftieth of it: its numbers, the same bytes every time, a data set like any other.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod given;

use data::coco::{DataPaths, Dataset, Options, Split};
use data::files::{CheckOptions, OnBadImage, check_files, shared_pictures};
use data::jpeg::probe;
use data::scenes::{
    FullSize, FullSizeSummary, SceneError, SceneSet, coco_categories, draw, draw_full_size,
};
use given::files;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::Path;

/// A fiftieth: 1,655 and 810 pictures.
const PART: FullSize = FullSize {
    seed: 1,
    divisor: NonZeroUsize::new(50).unwrap(),
};

fn made(set: &FullSize, dir: &Path) -> FullSizeSummary {
    draw_full_size(set, dir, &|_| ()).unwrap()
}

fn opened(root: &Path) -> Dataset {
    Dataset::open(&DataPaths::root(root), &Options::default()).unwrap()
}

fn json(root: &Path, split: &str) -> serde_json::Value {
    let path = root.join(format!("annotations/instances_{split}2014.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Share of the pictures that show a class.
fn share(split: &Split, class: u16) -> f64 {
    let shown = split.samples.iter().filter(|s| s.labels.contains(&class));
    shown.count() as f64 / split.samples.len() as f64
}

fn class_named(dataset: &Dataset, name: &str) -> u16 {
    let position = dataset.classes.iter().position(|class| class.name == name);
    position.unwrap() as u16
}

#[test]
fn a_part_has_its_part_of_cocos_numbers_and_is_read_without_a_word() {
    // given
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    let summary = made(&PART, &root);
    // when
    let dataset = opened(&root);
    // then
    let (classes, groups) = coco_categories();
    assert_eq!((&dataset.classes, &dataset.groups), (&classes, &groups));
    let mut ids = BTreeSet::new();
    for (split, told, [pictures, labelled, annotations]) in [
        (&dataset.train, summary.train, [82_783, 82_081, 604_907]),
        (&dataset.val, summary.val, [40_504, 40_137, 291_875]),
    ] {
        assert_eq!(split.samples.len(), pictures / 50);
        assert_eq!(split.unlabelled as usize, pictures / 50 - labelled / 50);
        assert_eq!(told.unlabelled as u64, split.unlabelled);
        assert_eq!(told.counts.objects, annotations / 50);
        let year = format!("{}2014", split.name);
        let listed = json(&root, &split.name);
        assert_eq!(
            listed["annotations"].as_array().unwrap().len(),
            annotations / 50
        );
        assert_eq!(split.warnings, []);
        for sample in &split.samples {
            assert!(ids.insert(sample.image_id), "id {}", sample.image_id);
            let name = format!("COCO_{year}_{:012}.jpg", sample.image_id);
            assert_eq!(sample.file_name, name);
        }
        let options = CheckOptions {
            on_bad_image: OnBadImage::Error,
            threads: 2,
            cache: None,
        };
        assert_eq!(check_files(split, &options).unwrap().bad, []);
    }
    assert_eq!(
        shared_pictures(&dataset.train, &dataset.val).warning(),
        None
    );
}

#[test]
fn pictures_are_of_the_size_that_their_entry_says_and_few_are_different() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    let summary = made(&PART, &root);
    for (split, told) in [("train", summary.train), ("val", summary.val)] {
        let mut different = BTreeSet::new();
        let mut bytes = 0;
        let listed = json(&root, split);
        for image in listed["images"].as_array().unwrap() {
            let name = image["file_name"].as_str().unwrap();
            let jpeg = std::fs::read(root.join(format!("{split}2014/{name}"))).unwrap();
            let header = probe(&jpeg).unwrap();
            let size = (u64::from(header.width), u64::from(header.height));
            let said = ["width", "height"].map(|key| image[key].as_u64().unwrap());
            assert_eq!(size, said.into(), "{name}");
            bytes += jpeg.len() as u64;
            different.insert(jpeg);
        }
        assert_eq!(different.len(), told.different);
        assert!(told.different < 60, "{told:?}");
        assert_eq!(bytes, told.counts.bytes);
        let once: usize = different.iter().map(Vec::len).sum();
        assert_eq!(once as u64, told.different_bytes);
    }
}

#[test]
fn classes_are_as_frequent_as_in_coco_and_meet_as_scenes_have_them() {
    // given
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    let tenth = FullSize {
        divisor: NonZeroUsize::new(10).unwrap(),
        ..PART
    };
    let summary = made(&tenth, &root);
    let dataset = opened(&root);
    let train = &dataset.train;
    // then
    for told in [summary.train, summary.val] {
        let labels = told.counts.labels_per_picture;
        assert!((2.75..3.05).contains(&labels), "{told:?}");
    }
    let of = |name: &str| share(train, class_named(&dataset, name));
    let person = of("person");
    assert!((0.45..0.56).contains(&person), "{person}");
    // COCO: 10.4, 10.8, 2.1 and 0.18 % of the pictures
    for (name, low, high) in [
        ("car", 0.08, 0.13),
        ("chair", 0.085, 0.13),
        ("wine glass", 0.014, 0.028),
        ("toaster", 0.0005, 0.004),
    ] {
        assert!((low..high).contains(&of(name)), "{name}: {}", of(name));
    }
    // Two classes of one kind of scene meet much more often than chance has it, two of different kinds less.
    let lift = |a: &str, b: &str| {
        let [first, second] = [a, b].map(|name| class_named(&dataset, name));
        let both = train
            .samples
            .iter()
            .filter(|s| s.labels.contains(&first) && s.labels.contains(&second));
        both.count() as f64 / train.samples.len() as f64 / (of(a) * of(b))
    };
    assert!(
        lift("car", "traffic light") > 2.0,
        "{}",
        lift("car", "traffic light")
    );
    assert!(lift("oven", "sink") > 2.0, "{}", lift("oven", "sink"));
    assert!(
        lift("oven", "surfboard") < 0.5,
        "{}",
        lift("oven", "surfboard")
    );
    // Some pictures show one class, some show many.
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    for sample in &train.samples {
        *sizes.entry(sample.labels.len()).or_default() += 1;
    }
    let part = |count: usize| count as f64 / train.samples.len() as f64;
    assert!((0.1..0.35).contains(&part(sizes[&1])), "{sizes:?}");
    assert!(
        part(sizes.range(6..).map(|(_, count)| count).sum()) > 0.03,
        "{sizes:?}"
    );
}

#[test]
fn annotations_are_as_long_as_cocos_some_are_crowds_and_they_come_in_no_order() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    let summary = made(&PART, &root);
    // instances_train2014.json: 332,556,225 bytes for 604,907 annotations, val: 160,682,675 for 291,875; both 550 a piece.
    for told in [summary.train, summary.val] {
        let bytes = told.annotation_bytes as f64 / told.counts.objects as f64;
        assert!(
            (470.0..630.0).contains(&bytes),
            "{bytes} bytes an annotation"
        );
    }
    let listed = json(&root, "train");
    let annotations = listed["annotations"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let (mut crowds, mut apart) = (0, 0);
    for pair in annotations.windows(2) {
        apart += usize::from(pair[0]["image_id"] != pair[1]["image_id"]);
    }
    for annotation in annotations {
        assert!(
            ids.insert(annotation["id"].as_u64().unwrap()),
            "{annotation}"
        );
        let crowd = annotation["iscrowd"] == 1;
        crowds += usize::from(crowd);
        assert_eq!(
            annotation["segmentation"].is_object(),
            crowd,
            "{annotation}"
        );
        assert!(annotation["area"].as_f64().unwrap() > 0.0, "{annotation}");
        assert_eq!(annotation["bbox"].as_array().unwrap().len(), 4);
    }
    let part = |count: usize| count as f64 / annotations.len() as f64;
    assert!((0.003..0.03).contains(&part(crowds)), "{crowds} crowds");
    assert!(part(apart) > 0.95);
}

#[test]
fn a_seed_gives_the_same_bytes_again_and_another_seed_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let small = FullSize {
        divisor: NonZeroUsize::new(500).unwrap(),
        ..PART
    };
    let [one, again, other] = [("one", 1), ("again", 1), ("other", 2)].map(|(name, seed)| {
        let root = dir.path().join(name);
        made(&FullSize { seed, ..small }, &root);
        files(&root)
    });
    assert_eq!(one.len(), 165 + 81 + 2 + 1);
    assert!(one == again);
    let common = one.keys().filter(|path| other.contains_key(*path)).count();
    assert!(common < 10, "{common} names in common");
}

#[test]
fn a_complete_folder_is_used_again_and_anything_else_is_refused() {
    // given
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    let small = FullSize {
        divisor: NonZeroUsize::new(1000).unwrap(),
        ..PART
    };
    let first = made(&small, &root);
    assert!(!first.reused);
    // when
    let again = draw_full_size(&small, &root, &|_| panic!("nothing is to be made")).unwrap();
    // then
    assert_eq!(
        again,
        FullSizeSummary {
            reused: true,
            ..first
        }
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    // and
    let before = files(&root);
    let refused = |error: SceneError, part: &str| {
        assert!(matches!(error, SceneError::Occupied { .. }), "{error}");
        assert!(error.to_string().contains(part), "{part} is not in {error}");
        assert_eq!(files(&root), before);
    };
    let seed = FullSize { seed: 2, ..small };
    refused(
        draw_full_size(&seed, &root, &|_| ()).unwrap_err(),
        "other parameters",
    );
    let scenes = SceneSet {
        train: 5,
        val: 4,
        seed: 1,
        scale: 0.1,
        threads: NonZeroUsize::MIN,
    };
    refused(
        draw(&scenes, &root, &|_| ()).unwrap_err(),
        "not one of such a set",
    );
}

#[test]
fn what_another_kind_of_set_left_half_made_is_not_moved_into_place() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    let draft = dir.path().join(".set.drawing");
    std::fs::create_dir_all(draft.join("train2017")).unwrap();
    std::fs::write(draft.join("train2017/000000000099.jpg"), "half").unwrap();
    let small = FullSize {
        divisor: NonZeroUsize::new(1000).unwrap(),
        ..PART
    };
    made(&small, &root);
    assert_eq!(files(&root).len(), 82 + 40 + 2 + 1);
    assert!(!root.join("train2017").exists());
}

#[test]
fn a_part_too_small_to_be_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = FullSize {
        divisor: NonZeroUsize::new(1001).unwrap(),
        ..PART
    };
    let error = draw_full_size(&nothing, &dir.path().join("set"), &|_| ()).unwrap_err();
    assert!(error.to_string().contains("divisor is 1001"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
