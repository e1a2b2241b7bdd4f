//! Where the tests' inputs lie: real pictures and odd inputs are not part of this repository.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests, of which each binary uses a part"
)]

use data::coco::{DataPaths, Dataset, OpenError, Options, Sample, Split};
use data::files::{CheckOptions, OnBadImage, check_files};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The folder of odd inputs, or a line that says why the test does nothing.
pub fn cases() -> Option<PathBuf> {
    folder("HGAT_TEST_CASES")
}

/// A COCO root with real pictures, or a line that says why the test does nothing.
pub fn coco() -> Option<PathBuf> {
    folder("HGAT_TEST_COCO")
}

fn folder(variable: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os(variable).filter(|value| !value.is_empty()) else {
        println!("skipped: {variable} is not set");
        return None;
    };
    let folder = PathBuf::from(folder);
    assert!(
        folder.is_dir(),
        "{variable} names {}, which is no folder",
        folder.display()
    );
    Some(folder)
}

/// The Python that peers are asked in, or a line that says why the test does nothing.
pub fn python() -> Option<std::process::Command> {
    let Some(python) = std::env::var_os("HGAT_PYTHON").filter(|value| !value.is_empty()) else {
        println!("skipped: HGAT_PYTHON is not set");
        return None;
    };
    Some(std::process::Command::new(python))
}

/// A split of pictures in a folder, none of which shows any of its two classes.
pub fn split_of(image_dir: &Path, names: &[&str]) -> Split {
    let samples = (1_u64..).zip(names).map(|(image_id, name)| Sample {
        image_id,
        file_name: (*name).to_owned(),
        labels: Box::default(),
    });
    Split {
        name: "val".to_owned(),
        annotation_file: image_dir.join("instances_val2017.json"),
        image_dir: image_dir.to_owned(),
        num_classes: 2,
        samples: samples.collect(),
        unlabelled: names.len() as u64,
        dropped: 0,
        warnings: Vec::new(),
    }
}

/// One variant of a case.
pub struct Variant {
    pub name: String,
    pub path: PathBuf,
    pub expected: Value,
}

impl Variant {
    pub fn outcome(&self) -> &str {
        self.expected["outcome"].as_str().unwrap()
    }

    /// The text holds everything that the case asks for; FILE stands for the path's last part.
    pub fn assert_message(&self, text: &str) {
        let file = self.path.file_name().unwrap().to_str().unwrap();
        for part in self.expected["message_must_contain"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let part = part.as_str().unwrap().replace("FILE", file);
            assert!(
                text.contains(&part),
                "{}: {part:?} is not in:\n{text}",
                self.name
            );
        }
    }
}

/// The variants of the case whose folder begins with `id`.
pub fn variants(cases: &Path, id: &str) -> Vec<Variant> {
    let folder = std::fs::read_dir(cases)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(id))
        .unwrap_or_else(|| panic!("no case {id}"));
    let expected: Value =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let variants: Vec<Variant> = expected["variants"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, expected)| Variant {
            name: format!("{id}/{name}"),
            path: folder.join(expected["path"].as_str().unwrap()),
            expected: expected.clone(),
        })
        .collect();
    assert!(!variants.is_empty());
    variants
}

/// What the start of a run does: annotations, then the files.
pub fn open_root(root: &Path, on_bad_image: OnBadImage) -> Result<Dataset, String> {
    let dataset = Dataset::open(&DataPaths::root(root), &Options::default()).map_err(|error| {
        assert!(
            matches!(error, OpenError::Problems(_)),
            "exit code 65 is for bad data, this is usage: {error}"
        );
        error.to_string()
    })?;
    let options = CheckOptions {
        on_bad_image,
        threads: 2,
        cache: None,
    };
    for split in [&dataset.train, &dataset.val] {
        check_files(split, &options).map_err(|error| error.to_string())?;
    }
    Ok(dataset)
}

/// Every file below a folder and its bytes.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                found.insert(path.strip_prefix(dir).unwrap().to_owned(), bytes);
            }
        }
    }
    found
}
