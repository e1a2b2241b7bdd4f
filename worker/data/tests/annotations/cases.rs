//! Every ANN case, and what some of them ask besides.

use crate::given;
use data::coco::{DataPaths, Dataset, Options};
use data::files::{CheckOptions, OnBadImage, check_files};
use serde_json::{Value, json};

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
