//! What is wrong with a file or its path, told all at once and by name.

use crate::{small, write};
use data::coco::{DataPaths, Dataset, OpenError, Options};
use serde_json::{Value, json};

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
