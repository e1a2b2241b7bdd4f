//! Drawn scenes: a data set in COCO's format without a photograph in it, bit-identical for a seed.
//!
//! Each picture is of one of eight kinds of scene, which sets both what is behind and which classes meet in it. A class
//! shows itself by the silhouette of its supercategory, by two inks of ten and by one texture of five: neither
//! silhouette nor colour alone tells it, and the same inks lie about as clutter. Objects cover each other; one is
//! labelled if at least a quarter of it can be seen.
//!
//! The pictures are the same on every machine and for any number of threads: random numbers come from a generator written
//! out here, and geometry uses only what IEEE 754 rounds exactly (no sine, no power).

mod annotations;
mod background;
mod categories;
mod folder;
mod full_size;
mod kinds;
mod look;
mod picture;
mod place;
mod random;
mod raster;
mod silhouette;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use serde::{Deserialize, Serialize};

pub use categories::coco_categories;
pub use full_size::{FullSize, FullSizeSplit, FullSizeSummary, draw_full_size};

use annotations::Record;
use folder::{Drawn, finish, store};
use picture::{Split, compose};
use place::{Draft, Manifest, Place};

/// What to draw. All but `threads` determines the pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SceneSet {
    /// Number of training pictures, at least 1; from 80 on every class is there.
    pub train: usize,
    /// Number of validation pictures, at least 1; from 80 on every class is there.
    pub val: usize,
    /// Seed of everything random. Training and validation draw from separate streams of it.
    pub seed: u64,
    /// Size of the pictures as a fraction of COCO's (640×480 and so on), above 0 and at most 1.
    pub scale: f32,
    /// Threads that draw.
    pub threads: NonZeroUsize,
}

/// What [`draw`] left in its folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The folder.
    pub dir: PathBuf,
    /// The training split.
    pub train: SplitSummary,
    /// The validation split.
    pub val: SplitSummary,
    /// The set was there already, drawn from the same parameters, and nothing was drawn.
    pub reused: bool,
}

/// What one split holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitSummary {
    /// Number of pictures.
    pub pictures: usize,
    /// Number of labelled objects.
    pub objects: usize,
    /// Different classes per picture, on average over the pictures.
    pub labels_per_picture: f64,
    /// Size of all its JPEG files.
    pub bytes: u64,
}

impl SplitSummary {
    fn of(records: &[Record]) -> Self {
        let labels: usize = records.iter().map(Record::labels).sum();
        SplitSummary {
            pictures: records.len(),
            objects: records.iter().map(|record| record.objects.len()).sum(),
            labels_per_picture: labels as f64 / records.len() as f64,
            bytes: records.iter().map(|record| record.bytes).sum(),
        }
    }
}

/// Why a set could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum SceneError {
    /// A parameter without a meaning.
    #[error("drawn scenes: {name} is {value}, must be {must}")]
    Parameter {
        /// Field of [`SceneSet`].
        name: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        must: &'static str,
    },
    /// Something else is where the set was to go. Nothing was changed.
    #[error("{} exists and is not the set to be drawn: {why}; remove it or name another folder", dir.display())]
    Occupied {
        /// The folder.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another process is drawing the same folder.
    #[error("{} is being drawn by another process (in {}); wait for it to finish", dir.display(), draft.display())]
    Busy {
        /// The folder.
        dir: PathBuf,
        /// Where the other process draws it.
        draft: PathBuf,
    },
    /// The file system refused. What was drawn so far is removed.
    #[error("cannot {doing} {}: {source}; check the path, its permissions and the free space", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The JPEG encoder refused.
    #[error("cannot encode {}: {source}; try another scale", path.display())]
    Encode {
        /// The picture.
        path: PathBuf,
        /// Why not.
        source: jpeg_encoder::EncodingError,
    },
}

/// Draws the set into the folder `dir` as COCO lays it out: `train2017/000000000001.jpg`…, `val2017/`,
/// `annotations/instances_{train,val}2017.json`.
///
/// `progress` is called on the calling thread with the number of pictures drawn so far. The folder appears complete or
/// not at all: pictures are drawn in a hidden folder beside it, which a later call clears if this process dies. A folder
/// that holds the same set already is used again without drawing.
///
/// # Errors
/// [`SceneError`]; in every case `dir` is as it was.
pub fn draw(set: &SceneSet, dir: &Path, progress: &dyn Fn(usize)) -> Result<Summary, SceneError> {
    check(set)?;
    let summary = |splits: [SplitSummary; 2], reused| Summary {
        dir: dir.to_path_buf(),
        train: splits[0],
        val: splits[1],
        reused,
    };
    let look = || place::look(dir, |drawn: &Drawn| drawn.differs(set));
    if let Place::Made(drawn) = look()? {
        return Ok(summary(drawn.splits(), true));
    }
    let draft = Draft::begin(dir, Drawn::SPLITS)?;
    // Another process may have finished between the first look and the lock.
    if let Place::Made(drawn) = look()? {
        return Ok(summary(drawn.splits(), true));
    }
    let (train, val) = draw_all(set, &draft, progress)?;
    Ok(summary(finish(draft, set, &train, &val)?, false))
}

fn check(set: &SceneSet) -> Result<(), SceneError> {
    for (name, value) in [("train", set.train), ("val", set.val)] {
        if value == 0 {
            return Err(SceneError::Parameter {
                name,
                value: "0".into(),
                must: "at least 1",
            });
        }
    }
    if !(set.scale > 0.0 && set.scale <= 1.0) {
        let (name, must) = ("scale", "above 0 and at most 1");
        return Err(SceneError::Parameter {
            name,
            value: set.scale.to_string(),
            must,
        });
    }
    Ok(())
}

/// Draws every picture on the set's threads, each taking the next one that nobody has; records in order.
fn draw_all(
    set: &SceneSet,
    draft: &Draft,
    progress: &dyn Fn(usize),
) -> Result<(Vec<Record>, Vec<Record>), SceneError> {
    let total = set.train + set.val;
    let next = AtomicUsize::new(0);
    let mut records: Vec<Option<Record>> = vec![None; total];
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..set.threads.get().min(total) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= total {
                        return;
                    }
                    let (split, index) = if number < set.train {
                        (Split::Train, number)
                    } else {
                        (Split::Val, number - set.train)
                    };
                    let drawn = store(draft, set, split, index, &compose(set, split, index));
                    // Nobody listens any more once another picture has failed.
                    if sender.send((number, drawn)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (done, (number, drawn)) in receiver.into_iter().enumerate() {
            records[number] = Some(drawn?);
            progress(done + 1);
        }
        Ok(())
    })?;
    let mut train: Vec<Record> = records.into_iter().flatten().collect();
    let val = train.split_off(set.train);
    Ok((train, val))
}
