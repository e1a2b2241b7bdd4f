//! Annotation files as people have them: every ANN case, and the kinds they stand for.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod given;

use data::coco::{DataPaths, Dataset, OpenError, Options, Split};
use data::files::{CheckOptions, OnBadImage, check_files};
use serde_json::{Value, json};
use std::path::Path;

#[test]
fn every_annotation_case_ends_as_it_should() {
    let Some(cases) = given::cases() else { return };
    let mut seen = 0;
    for id in [
        "ANN-01", "ANN-02", "ANN-03", "ANN-06", "ANN-07", "ANN-08", "ANN-10", "ANN-12", "ANN-13",
        "ANN-16",
    ] {
        for variant in given::variants(&cases, id) {
            let opened = given::open_root(&variant.path, OnBadImage::Error);
            match (variant.outcome(), opened) {
                ("accept", Ok(dataset)) => {
                    assert_facts(&variant.name, &dataset, &variant.expected["facts"])
                }
                ("error", Err(text)) => variant.assert_message(&text),
                (outcome, opened) => {
                    panic!("{}: {outcome} was right, got {opened:?}", variant.name)
                }
            }
            seen += 1;
        }
    }
    assert!(seen >= 35, "only {seen} variants");
}

fn assert_facts(name: &str, dataset: &Dataset, facts: &Value) {
    for (split, facts) in [
        (&dataset.train, &facts["train"]),
        (&dataset.val, &facts["val"]),
    ] {
        assert_eq!(json!(split.samples.len()), facts["images"], "{name}");
        assert_eq!(json!(split.unlabelled), facts["unlabelled"], "{name}");
        assert_eq!(json!(split.num_classes), facts["categories"], "{name}");
        let labels: serde_json::Map<String, Value> = split
            .samples
            .iter()
            .map(|s| (s.image_id.to_string(), json!(s.labels)))
            .collect();
        assert_eq!(Value::Object(labels), facts["labels"], "{name}");
    }
}

#[test]
fn class_index_is_the_place_in_the_file_and_groups_are_supercategories() {
    let Some(root) = given::coco() else { return };

    let dataset = Dataset::open(&DataPaths::root(root), &Options::default()).unwrap();

    assert_eq!(dataset.classes.len(), 80);
    assert_eq!(
        (
            dataset.classes[79].coco_id,
            dataset.classes[79].name.as_str()
        ),
        (90, "toothbrush")
    );
    let sizes: Vec<usize> = dataset.groups.iter().map(|g| g.classes.len()).collect();
    assert_eq!(sizes, [1, 8, 5, 10, 5, 10, 7, 10, 6, 6, 5, 7]);
    assert_eq!(dataset.groups[0].name, "person");
    for (index, group) in dataset.groups.iter().enumerate() {
        assert!(
            group
                .classes
                .iter()
                .all(|&class| dataset.classes[class].group == index)
        );
    }
}

#[test]
fn sub_folders_with_equal_base_names_stay_two_pictures() {
    let Some(cases) = given::cases() else { return };
    let variants = given::variants(&cases, "ANN-13");
    let variant = variants
        .iter()
        .find(|v| v.name.ends_with("sub_folders_equal_names"))
        .unwrap();

    let dataset = given::open_root(&variant.path, OnBadImage::Error).unwrap();

    for name in variant.expected["distinct_files"].as_array().unwrap() {
        assert!(
            dataset
                .train
                .samples
                .iter()
                .any(|s| json!(s.file_name) == *name),
            "{name}"
        );
    }
}

#[test]
fn a_missing_picture_is_listed_once_when_bad_pictures_are_skipped() {
    let Some(cases) = given::cases() else { return };
    let variants = given::variants(&cases, "ANN-08");
    let variant = variants
        .iter()
        .find(|v| v.name.ends_with("one_missing"))
        .unwrap();
    let dataset = Dataset::open(&DataPaths::root(&variant.path), &Options::default()).unwrap();

    let options = CheckOptions {
        on_bad_image: OnBadImage::Skip,
        threads: 2,
        cache: None,
    };
    let report = check_files(&dataset.train, &options).unwrap();

    assert_eq!(
        (report.checked, report.missing, report.bad.len()),
        (5, 1, 1)
    );
    assert_eq!(report.bad[0].image_id, 41888);
}

#[test]
fn names_of_the_other_year_are_told_apart_from_lost_pictures() {
    let Some(cases) = given::cases() else { return };
    let variants = given::variants(&cases, "ANN-08");
    let variant = variants
        .iter()
        .find(|v| v.name.ends_with("names_2014_files_2017"))
        .unwrap();

    let text = given::open_root(&variant.path, OnBadImage::Error).unwrap_err();

    assert!(text.contains("5 of 5"), "{text}");
    assert!(
        text.contains("names of 2014") && text.contains("names of 2017"),
        "{text}"
    );
}

#[test]
fn all_mistakes_of_both_files_come_at_once() {
    // given
    let root = tempfile::tempdir().unwrap();
    let mut train = small();
    train["annotations"][0]["category_id"] = json!(99);
    train["annotations"][1]["image_id"] = json!(77);
    train["images"][1]["id"] = train["images"][0]["id"].clone();
    let mut val = small();
    val["images"][0]["file_name"] = Value::Null;
    write(root.path(), &train, &val);

    // when
    let error = Dataset::open(&DataPaths::root(root.path()), &Options::default()).unwrap_err();

    // then
    let OpenError::Problems(problems) = &error else {
        panic!("{error}")
    };
    assert!(problems.total >= 4, "{error}");
    let text = error.to_string();
    for part in [
        "category_id 99",
        "image_id 77",
        "images[].id 1 is carried",
        "file_name is null",
        "instances_val2017.json",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn a_million_mistakes_are_counted_and_twenty_are_listed() {
    let root = tempfile::tempdir().unwrap();
    let mut train = small();
    train["images"] = (0..1000)
        .map(|i| json!({"id": -i - 1, "file_name": "x.jpg"}))
        .collect();
    train["annotations"] = json!([]);
    write(root.path(), &train, &small());

    let error = Dataset::open(&DataPaths::root(root.path()), &Options::default()).unwrap_err();

    let OpenError::Problems(problems) = &error else {
        panic!("{error}")
    };
    assert_eq!((problems.total, problems.listed.len()), (1000, 20));
    assert!(error.to_string().ends_with("and 980 more"));
}

#[test]
fn splits_with_different_categories_are_refused_and_another_order_is_not() {
    let root = tempfile::tempdir().unwrap();
    let mut val = small();
    val["categories"].as_array_mut().unwrap().reverse();
    write(root.path(), &small(), &val);
    let dataset = Dataset::open(&DataPaths::root(root.path()), &Options::default()).unwrap();
    assert_eq!(
        dataset.train.samples, dataset.val.samples,
        "the training file's order holds for both"
    );

    val["categories"][0]["name"] = json!("tiger");
    write(root.path(), &small(), &val);
    let text = Dataset::open(&DataPaths::root(root.path()), &Options::default())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("\"tiger\" here") && text.contains("instances_val2017.json"),
        "{text}"
    );
}

#[test]
fn groups_can_be_given_and_their_mistakes_are_told() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &small(), &small());
    let open = |groups: &[(&str, &[&str])]| {
        let groups = groups
            .iter()
            .map(|(n, c)| ((*n).to_owned(), c.iter().map(|c| (*c).to_owned()).collect()));
        let options = Options {
            groups: Some(groups.collect()),
            ..Options::default()
        };
        Dataset::open(&DataPaths::root(root.path()), &options)
    };

    let dataset = open(&[("pets", &["dog", "cat"]), ("things", &["car"])]).unwrap();
    assert_eq!(dataset.groups[0].classes, [0, 1]);
    assert_eq!(dataset.classes[2].group, 1);

    let text = open(&[("pets", &["dog", "wolf"]), ("more", &["dog"])])
        .unwrap_err()
        .to_string();
    for part in [
        "\"wolf\"",
        "\"dog\" is in group \"pets\" and in group \"more\"",
        "2 classes are in no group",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn unlabelled_pictures_are_kept_counted_or_dropped() {
    let root = tempfile::tempdir().unwrap();
    let mut train = small();
    train["images"]
        .as_array_mut()
        .unwrap()
        .push(json!({"id": 9, "file_name": "empty.jpg"}));
    write(root.path(), &train, &small());
    let open = |drop_unlabelled| {
        let options = Options {
            drop_unlabelled,
            groups: None,
        };
        Dataset::open(&DataPaths::root(root.path()), &options)
            .unwrap()
            .train
    };

    let (kept, dropped) = (open(false), open(true));

    assert_eq!(
        (kept.samples.len(), kept.unlabelled, kept.dropped),
        (3, 1, 0)
    );
    assert_eq!(
        (dropped.samples.len(), dropped.unlabelled, dropped.dropped),
        (2, 1, 1)
    );
}

#[test]
fn text_that_is_not_json_is_named_for_what_it_is() {
    let root = tempfile::tempdir().unwrap();
    for (content, part) in [
        (&b"<!DOCTYPE html><html>"[..], "a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "Git LFS pointer",
        ),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"", "0 bytes"),
        (b"[1, 2]", "expected an object with the keys images"),
        (b"{\"images\": 3}", "expected images to be a list"),
        (b"{\"images\": []}", "has no key annotations"),
        (
            b"{\"images\": [],\n \"x\": [-Infinity]}",
            "-Infinity at line 2",
        ),
        (b"{\"images\": [], \"images\": []}", "there twice"),
        (b"{\"images\": []} trailing", "trailing characters"),
    ] {
        write(root.path(), &small(), &small());
        std::fs::write(
            root.path().join("annotations/instances_val2017.json"),
            content,
        )
        .unwrap();

        let text = Dataset::open(&DataPaths::root(root.path()), &Options::default())
            .unwrap_err()
            .to_string();

        assert!(
            text.contains(part) && text.contains("instances_val2017.json"),
            "{part:?} is not in {text}"
        );
    }
}

#[test]
fn paths_that_lead_nowhere_name_the_key() {
    let root = tempfile::tempdir().unwrap();
    let text = |paths: &DataPaths| match Dataset::open(paths, &Options::default()) {
        Err(OpenError::Paths(text)) => text,
        other => panic!("{other:?}"),
    };
    assert!(text(&DataPaths::default()).contains("data.root is not set"));
    assert!(text(&DataPaths::root(root.path().join("no"))).contains("there is no folder"));
    assert!(text(&DataPaths::root(root.path())).contains("instances_train2017.json"));

    write(root.path(), &small(), &small());
    let annotations = root.path().join("annotations");
    for name in ["train", "val"] {
        let file = |year| annotations.join(format!("instances_{name}{year}.json"));
        std::fs::copy(file(2017), file(2014)).unwrap();
    }
    assert!(text(&DataPaths::root(root.path())).contains("data.year"));
    let paths = DataPaths {
        year: Some(2014),
        ..DataPaths::root(root.path())
    };
    let dataset = Dataset::open(&paths, &Options::default()).unwrap();
    assert!(
        dataset
            .train
            .image_path(0)
            .unwrap()
            .ends_with("train2014/a.jpg")
    );

    let paths = DataPaths {
        val_annotations: Some("none.json".into()),
        ..DataPaths::root(root.path())
    };
    let paths = DataPaths {
        year: Some(2017),
        ..paths
    };
    assert!(text(&paths).contains("data.val_annotations"));
}

#[test]
fn a_file_of_coco_s_kind_is_read_within_a_small_multiple_of_its_size() {
    // given: 60 MB in the shape of the real file, nine tenths of it polygons
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &small(), &small());
    let file = root.path().join("annotations/instances_train2017.json");
    let (images, annotations) = (20_000_u64, 140_000_u64);
    let mut text = String::from("{\"images\":[");
    for i in 0..images {
        let comma = if i > 0 { "," } else { "" };
        text += &format!(
            "{comma}{{\"license\":4,\"file_name\":\"{i:012}.jpg\",\"height\":480,\"width\":640,\"id\":{i}}}"
        );
    }
    text += "],\"annotations\":[";
    let polygon = (0..40)
        .map(|i| format!("{}.25", i * 13))
        .collect::<Vec<_>>()
        .join(",");
    for a in 0..annotations {
        let (comma, image, class) = (if a > 0 { "," } else { "" }, a * 7 % images, a % 3 + 1);
        text += &format!(
            "{comma}{{\"segmentation\":[[{polygon},{polygon}]],\"area\":12.5,\"iscrowd\":0,\"image_id\":{image},\
             \"bbox\":[1.5,2.5,30.0,40.0],\"category_id\":{class},\"id\":{a}}}"
        );
    }
    text += &format!("],\"categories\":{}}}", small()["categories"]);
    std::fs::write(&file, &text).unwrap();
    let size = text.len() as u64;
    drop(text);
    assert!(size > 60_000_000, "{size}");

    // when: in a process of its own, whose peak memory is only this
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "peak_memory_of_one_open", "--nocapture"])
        .env("HGAT_OPEN_ROOT", root.path())
        .output()
        .unwrap();

    // then
    let text = String::from_utf8_lossy(&output.stdout);
    let peak = text
        .split("peak_kib=")
        .nth(1)
        .and_then(|t| t.split_whitespace().next())
        .expect(&text);
    let peak = peak.parse::<u64>().unwrap() * 1024;
    assert!(
        peak < size + size / 2 + (20 << 20),
        "peak memory {peak} for a file of {size}"
    );
}

/// Measured by the test above in a process of its own.
#[test]
fn peak_memory_of_one_open() {
    let Some(root) = std::env::var_os("HGAT_OPEN_ROOT") else {
        return;
    };
    let dataset = Dataset::open(&DataPaths::root(root), &Options::default()).unwrap();
    assert_eq!(dataset.train.samples.len(), 20_000);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    println!("peak_kib={}", line.split_whitespace().nth(1).unwrap());
}

#[test]
fn the_wire_form_is_small_and_comes_back_the_same() {
    let Some(root) = given::coco() else { return };
    let dataset = Dataset::open(&DataPaths::root(root), &Options::default()).unwrap();
    for split in [dataset.train, dataset.val] {
        let bytes = split.encode();
        assert!(
            bytes.len() < 400 + 60 * split.samples.len(),
            "{} bytes",
            bytes.len()
        );
        assert_eq!(Split::decode(&bytes).unwrap(), split);
    }
}

/// Two pictures, three classes in two supercategories.
fn small() -> Value {
    json!({
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "annotations": [
            {"id": 10, "image_id": 1, "category_id": 1},
            {"id": 11, "image_id": 2, "category_id": 2},
            {"id": 12, "image_id": 2, "category_id": 3},
        ],
        "categories": [
            {"id": 1, "name": "dog", "supercategory": "animal"},
            {"id": 2, "name": "cat", "supercategory": "animal"},
            {"id": 3, "name": "car"},
        ],
    })
}

fn write(root: &Path, train: &Value, val: &Value) {
    std::fs::create_dir_all(root.join("annotations")).unwrap();
    for (name, value) in [("train", train), ("val", val)] {
        std::fs::write(
            root.join(format!("annotations/instances_{name}2017.json")),
            value.to_string(),
        )
        .unwrap();
    }
}
