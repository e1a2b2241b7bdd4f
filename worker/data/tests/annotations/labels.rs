//! What a file's categories and labels become: classes, groups, pictures without labels.

use crate::{given, small, write};
use data::coco::{DataPaths, Dataset, Options};
use serde_json::json;

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
