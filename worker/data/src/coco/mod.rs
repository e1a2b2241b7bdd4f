//! COCO-format annotations as a compact index: classes, their groups, and per picture its file name and labels.
//!
//! Classes are the annotation file's categories in file order (COCO's sparse ids 1 to 90 become 0 to 79); groups are
//! their supercategories in order of first appearance. A class counts once per picture, a crowd entry is a label.

use problem::Collector;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

mod build;
mod entry;
mod parse;
mod paths;
mod problem;
mod scalar;
mod wire;

pub(crate) use build::by_supercategory;
pub use paths::SplitPaths;
pub use problem::{LISTED_PER_FILE, OpenError, Problem, Problems};
pub use wire::IndexError;

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
        let (train, val) = paths.resolve()?;
        let (train, val) = std::thread::scope(|scope| {
            let other = scope.spawn(|| read_split("val", &val, options));
            let train = read_split("train", &train, options);
            let val = other
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (train, val)
        });
        let mut problems = Problems::default();
        if let (Ok(train), Ok(val)) = (&train, &val) {
            problems = same_classes(train, val);
        }
        for result in [&train, &val] {
            match result {
                Err(OpenError::Problems(found)) => problems.extend(found.clone()),
                Err(other) => return Err(other.clone()),
                Ok(_) => {}
            }
        }
        if problems.total > 0 {
            return Err(OpenError::Problems(problems));
        }
        let (
            SplitFile {
                classes,
                groups,
                split: train,
            },
            mut val,
        ) = (train?, val?);
        val.follow_order(&classes);
        Ok(Self {
            classes,
            groups,
            train,
            val: val.split,
        })
    }
}

/// One annotation file by itself, as for scoring predictions without a training split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitFile {
    /// Classes in the order of the file's `categories`.
    pub classes: Vec<Class>,
    /// Groups in order of first appearance.
    pub groups: Vec<Group>,
    /// The pictures.
    pub split: Split,
}

/// Reads one annotation file; `name` is what the split is called.
///
/// # Errors
/// [`OpenError`]: every mistake of the file at once, up to a limit.
pub fn read_split(
    name: &str,
    paths: &SplitPaths,
    options: &Options,
) -> Result<SplitFile, OpenError> {
    let mut problems = Collector::new(&paths.annotations);
    let Some(raw) = parse::read(&paths.annotations, &mut problems) else {
        return Err(OpenError::Problems(problems.into_problems()));
    };
    let mut classes = build::classes(&raw.categories, &mut problems);
    let groups = build::groups(&mut classes, &raw.categories, options);
    let split = Split {
        name: name.to_owned(),
        annotation_file: paths.annotations.clone(),
        image_dir: paths.images.clone(),
        num_classes: classes.len(),
        samples: Vec::new(),
        unlabelled: 0,
        dropped: 0,
        warnings: Vec::new(),
    };
    let split = build::samples(split, raw, &classes, options, &mut problems);
    if !problems.is_empty() {
        return Err(OpenError::Problems(problems.into_problems()));
    }
    Ok(SplitFile {
        classes,
        groups: groups?,
        split,
    })
}

/// Both files must define the same classes by id and name; their order may differ.
fn same_classes(train: &SplitFile, val: &SplitFile) -> Problems {
    let mut problems = Collector::new(&val.split.annotation_file);
    let name_of = |file: &SplitFile| -> BTreeMap<u64, String> {
        file.classes
            .iter()
            .map(|class| (class.coco_id, class.name.clone()))
            .collect()
    };
    let (here, there) = (name_of(val), name_of(train));
    let ids: BTreeSet<u64> = here.keys().chain(there.keys()).copied().collect();
    for id in ids {
        let quote = |name: Option<&String>| {
            name.map_or_else(|| "absent".to_owned(), |name| format!("{name:?}"))
        };
        let (ours, theirs) = (here.get(&id), there.get(&id));
        if ours != theirs {
            problems.add(|| {
                format!(
                    "categories[].id {id} is {} here and {} in {}: both splits need the same categories",
                    quote(ours),
                    quote(theirs),
                    train.split.annotation_file.display()
                )
            });
        }
    }
    problems.into_problems()
}

impl SplitFile {
    /// Renumbers the labels to the order of `classes`, which hold the same ids.
    fn follow_order(&mut self, classes: &[Class]) {
        let index_of: BTreeMap<u64, u16> = classes
            .iter()
            .enumerate()
            .map(|(index, class)| (class.coco_id, index as u16))
            .collect();
        let new: Vec<u16> = self
            .classes
            .iter()
            .map(|class| index_of.get(&class.coco_id).copied().unwrap_or_default())
            .collect();
        if new.is_sorted() {
            return;
        }
        for sample in &mut self.split.samples {
            for label in &mut sample.labels {
                *label = new[usize::from(*label)];
            }
            sample.labels.sort_unstable();
        }
    }
}

impl Split {
    /// Path of a sample's picture; `None` when the split has no such sample.
    #[must_use]
    pub fn image_path(&self, sample: u32) -> Option<PathBuf> {
        self.samples
            .get(sample as usize)
            .map(|s| self.image_dir.join(&s.file_name))
    }
}
