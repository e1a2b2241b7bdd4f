//! COCO-format annotations as a compact index: classes, their groups, and per picture its file name and labels.
//!
//! Classes are the annotation file's categories in file order (COCO's sparse ids 1 to 90 become 0 to 79); groups are
//! their supercategories in order of first appearance. A class counts once per picture, a crowd entry is a label.

use std::path::PathBuf;

mod problem;

pub use problem::{OpenError, Problem, Problems};

/// A category of the annotation file; its place in [`Dataset::classes`] is the class index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// `categories[].name`.
    pub name: String,
    /// `categories[].id`, which may have gaps.
    pub coco_id: u64,
    /// Index into [`Dataset::groups`].
    pub group: usize,
}

/// Classes that share a head group: those of one supercategory unless overridden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Name of the supercategory, or of the override.
    pub name: String,
    /// Class indices, ascending.
    pub classes: Vec<usize>,
}

/// One picture. Everywhere else it is known by its index in [`Split::samples`], the sample id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// `images[].id`.
    pub image_id: u64,
    /// `images[].file_name`: a path relative to [`Split::image_dir`].
    pub file_name: String,
    /// Class indices, ascending, each once; empty when the picture shows no class.
    pub labels: Box<[u16]>,
}

/// Something odd that the annotations may hold without harm, counted instead of repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it is, with the first example.
    pub text: String,
    /// How often it occurs.
    pub count: u64,
}

/// The pictures of one split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// `train` or `val`.
    pub name: String,
    /// The file that this split was read from.
    pub annotation_file: PathBuf,
    /// Folder that file names are relative to.
    pub image_dir: PathBuf,
    /// Number of classes; labels are below it.
    pub num_classes: usize,
    /// Pictures in file order; the index is the sample id.
    pub samples: Vec<Sample>,
    /// Pictures of the file without any label, whether kept or dropped.
    pub unlabelled: u64,
    /// Pictures without a label that were dropped (`data.drop_unlabelled`).
    pub dropped: u64,
    /// Odd but harmless things in the file.
    pub warnings: Vec<Warning>,
}

/// A training and a validation split over the same classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Classes in the order of the training file's `categories`.
    pub classes: Vec<Class>,
    /// Groups in order of first appearance.
    pub groups: Vec<Group>,
    /// Training pictures.
    pub train: Split,
    /// Validation pictures.
    pub val: Split,
}

/// Where the data set lies: a root in COCO's layout, and keys that override parts of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataPaths {
    /// `data.root`: a folder with `annotations/instances_{train,val}YEAR.json` and `{train,val}YEAR/`.
    pub root: Option<PathBuf>,
    /// `data.year`: 2014 or 2017; needed only when the root holds both.
    pub year: Option<u16>,
    /// `data.train_annotations`.
    pub train_annotations: Option<PathBuf>,
    /// `data.train_images`.
    pub train_images: Option<PathBuf>,
    /// `data.val_annotations`.
    pub val_annotations: Option<PathBuf>,
    /// `data.val_images`.
    pub val_images: Option<PathBuf>,
}

/// How to read the annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `data.drop_unlabelled`: leave out pictures that show no class.
    pub drop_unlabelled: bool,
    /// `data.groups`: (name, class names) in group order, instead of the supercategories; every class in exactly one.
    pub groups: Option<Vec<(String, Vec<String>)>>,
}

impl Dataset {
    /// Reads both annotation files, in parallel.
    ///
    /// # Errors
    /// [`OpenError`]: every mistake of both files at once, up to a limit per file.
    pub fn open(paths: &DataPaths, options: &Options) -> Result<Self, OpenError> {
        let _ = (paths, options);
        todo!()
    }
}

impl Split {
    /// Path of a sample's picture.
    pub fn image_path(&self, sample: u32) -> Option<PathBuf> {
        self.samples
            .get(sample as usize)
            .map(|s| self.image_dir.join(&s.file_name))
    }

    /// The index in its wire form, about 30 bytes a sample; see [`Split::decode`].
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads what [`Split::encode`] wrote. Hostile bytes neither panic nor allocate more than a small multiple of their length.
    ///
    /// # Errors
    /// [`IndexError`] when the bytes are of another version, end early or contradict themselves.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let _ = bytes;
        todo!()
    }
}

/// Why bytes are not a [`Split`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("dataset index: {0}")]
pub struct IndexError(pub String);
