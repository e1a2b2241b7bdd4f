//! Where a data set's annotation files and picture folders lie.

use super::{DataPaths, OpenError};
use std::path::{Path, PathBuf};

const YEARS: [u16; 2] = [2014, 2017];

/// The annotation file and the picture folder of one split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitPaths {
    /// `instances_*.json`.
    pub annotations: PathBuf,
    /// Folder that `images[].file_name` is relative to.
    pub images: PathBuf,
}

impl DataPaths {
    /// A root in COCO's layout, nothing overridden.
    pub fn root(root: impl Into<PathBuf>) -> Self {
        Self {
            root: Some(root.into()),
            ..Self::default()
        }
    }

    /// The files of the training and of the validation split.
    ///
    /// # Errors
    /// [`OpenError::Paths`], naming the key and what was looked for.
    pub fn resolve(&self) -> Result<(SplitPaths, SplitPaths), OpenError> {
        let train = self.split(
            "train",
            self.train_annotations.as_deref(),
            self.train_images.as_deref(),
        )?;
        let val = self.split(
            "val",
            self.val_annotations.as_deref(),
            self.val_images.as_deref(),
        )?;
        Ok((train, val))
    }

    fn split(
        &self,
        name: &str,
        annotations: Option<&Path>,
        images: Option<&Path>,
    ) -> Result<SplitPaths, OpenError> {
        let found = match (annotations, images) {
            (Some(annotations), Some(images)) => SplitPaths {
                annotations: annotations.to_owned(),
                images: images.to_owned(),
            },
            _ => {
                let year = self.year(name, annotations.is_some())?;
                let root = self.root.as_deref().unwrap_or(Path::new(""));
                SplitPaths {
                    annotations: annotations
                        .map_or_else(|| annotation_file(root, name, year), Path::to_owned),
                    images: images
                        .map_or_else(|| root.join(format!("{name}{year}")), Path::to_owned),
                }
            }
        };
        if found.annotations.is_file() {
            return Ok(found);
        }
        let key = if annotations.is_some() {
            format!("data.{name}_annotations")
        } else {
            "data.root".to_owned()
        };
        Err(OpenError::Paths(format!(
            "{key}: there is no annotation file {}",
            found.annotations.display()
        )))
    }

    /// The year whose files the root holds for a split.
    fn year(&self, name: &str, annotations_given: bool) -> Result<u16, OpenError> {
        let Some(root) = &self.root else {
            return Err(OpenError::Paths(format!(
                "data.root is not set: give a folder with annotations/instances_{name}2017.json and {name}2017/, \
                 or both data.{name}_annotations and data.{name}_images"
            )));
        };
        if !root.is_dir() {
            return Err(OpenError::Paths(format!(
                "data.root: there is no folder {}",
                root.display()
            )));
        }
        if let Some(year) = self.year {
            return match YEARS.contains(&year) {
                true => Ok(year),
                false => Err(OpenError::Paths(format!(
                    "data.year: {year} is not 2014 or 2017"
                ))),
            };
        }
        // With both years' annotations in one folder, as the download has them, the pictures tell.
        let folder = |year: &u16| root.join(format!("{name}{year}")).is_dir();
        let file = |year: &u16| annotations_given || annotation_file(root, name, *year).is_file();
        let mut years: Vec<u16> = YEARS.into_iter().filter(file).collect();
        if years.len() > 1 && years.iter().any(folder) {
            years.retain(folder);
        }
        match years.as_slice() {
            [year] => Ok(*year),
            [] => Err(OpenError::Paths(format!(
                "data.root: {} has no annotations/instances_{name}2017.json or instances_{name}2014.json; \
                 name the files with data.{name}_annotations and data.{name}_images if they lie elsewhere",
                root.display()
            ))),
            _ => Err(OpenError::Paths(format!(
                "data.root: {} holds {name} splits of 2014 and of 2017; choose with data.year",
                root.display()
            ))),
        }
    }
}

fn annotation_file(root: &Path, name: &str, year: u16) -> PathBuf {
    root.join("annotations")
        .join(format!("instances_{name}{year}.json"))
}
