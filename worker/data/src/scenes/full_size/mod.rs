//! A data set of COCO 2014's shape without its photographs: as many entries, labels as frequent and in as much company,
//! annotation files of its size. What is to be tried at full size can be, on any machine and within seconds.
//!
//! It teaches nothing: nothing of the labels can be seen in the pictures, which are a few dozen, each under thousands of names
//! (hard links). Names, entries and annotation files are the same on every machine, as those of the other sets are.

mod file;
mod labels;
mod outline;
mod pictures;
mod shape;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::picture::SIZES;
use super::place::{Draft, Manifest, Place, annotation_path, io, look};
use super::random::{Domain, FullSizePart, Stream};
use super::{SceneError, SplitSummary};
use file::{Picture, file_name};
use labels::{Shown, shown};
use pictures::Stock;
use shape::{COCO_2014, Counts, HIGHEST_ID};

/// Raised whenever the same parameters give another set.
const DRAWING: u32 = 1;
/// Most that a set may be divided by.
const MOST_DIVIDED: usize = 1000;

/// What determines a set of full size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullSize {
    /// Seed of everything random.
    pub seed: u64,
    /// 1 for full size; tests take a part of the pictures, up to a thousandth.
    pub divisor: NonZeroUsize,
}

/// What one split holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FullSizeSplit {
    /// Pictures, annotations, classes per picture (those without any included), bytes of all files by name.
    #[serde(flatten)]
    pub counts: SplitSummary,
    /// Pictures without an annotation.
    pub unlabelled: usize,
    /// Size of the annotation file in bytes.
    pub annotation_bytes: u64,
    /// Different pictures under all the names.
    pub different: usize,
    /// Size of those in bytes: what the pictures take on disk where links are known.
    pub different_bytes: u64,
}

/// What [`draw_full_size`] left in its folder.
#[derive(Clone, Debug, PartialEq)]
pub struct FullSizeSummary {
    /// The folder.
    pub dir: PathBuf,
    /// The training split.
    pub train: FullSizeSplit,
    /// The validation split.
    pub val: FullSizeSplit,
    /// The set was there already, made from the same parameters, and nothing was written.
    pub reused: bool,
}

/// What such a set was made from.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Made {
    like: String,
    drawing: u32,
    seed: u64,
    divisor: usize,
    parts: [FullSizeSplit; 2],
}

const LIKE: &str = "coco2014";

impl Manifest for Made {
    const SPLITS: [&'static str; 2] = ["train2014", "val2014"];

    fn splits(&self) -> [SplitSummary; 2] {
        self.parts.map(|split| split.counts)
    }
}

impl Made {
    fn differs(&self, set: &FullSize) -> Option<String> {
        let same = (self.like.as_str(), self.drawing, self.seed, self.divisor)
            == (LIKE, DRAWING, set.seed, set.divisor.get());
        (!same).then(|| {
            format!(
                "like {}, seed {}, divisor {}, drawing {}",
                self.like, self.seed, self.divisor, self.drawing
            )
        })
    }
}

/// Makes the set in the folder `dir` as COCO 2014 is laid out: `train2014/COCO_train2014_000000000009.jpg`…, `val2014/`,
/// `annotations/instances_{train,val}2014.json`.
///
/// `progress` is called with the number of pictures stored so far. As with [`draw`](super::draw), the folder appears
/// complete or not at all, and one that holds the same set already is used again.
///
/// # Errors
/// [`SceneError`]; in every case `dir` is as it was.
pub fn draw_full_size(
    set: &FullSize,
    dir: &Path,
    progress: &dyn Fn(usize),
) -> Result<FullSizeSummary, SceneError> {
    if set.divisor.get() > MOST_DIVIDED {
        return Err(SceneError::Parameter {
            name: "divisor",
            value: set.divisor.to_string(),
            must: "at most 1000",
        });
    }
    let look = || look(dir, |made: &Made| made.differs(set));
    let summary = |parts: [FullSizeSplit; 2], reused| FullSizeSummary {
        dir: dir.to_path_buf(),
        train: parts[0],
        val: parts[1],
        reused,
    };
    if let Place::Made(made) = look()? {
        return Ok(summary(made.parts, true));
    }
    let draft = Draft::begin(dir, Made::SPLITS)?;
    // Another process may have finished between the first look and the lock.
    if let Place::Made(made) = look()? {
        return Ok(summary(made.parts, true));
    }
    let counts = COCO_2014.map(|counts| counts.divided(set.divisor.get()));
    let ids = ids(set.seed, counts[0].pictures + counts[1].pictures);
    let (train_ids, val_ids) = ids.split_at(counts[0].pictures);
    let train = split(set, false, &counts[0], train_ids, &draft, progress)?;
    let after = |done| progress(counts[0].pictures + done);
    let val = split(set, true, &counts[1], val_ids, &draft, &after)?;
    let parts = [train, val];
    draft.finish(&Made {
        like: LIKE.to_owned(),
        drawing: DRAWING,
        seed: set.seed,
        divisor: set.divisor.get(),
        parts,
    })?;
    Ok(summary(parts, false))
}

/// Ids of all pictures, each once and in no order.
fn ids(seed: u64, pictures: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (1..=HIGHEST_ID).collect();
    Stream::new(seed, Domain::FullSize(FullSizePart::Ids, false), 0).shuffle(&mut ids);
    ids.truncate(pictures);
    ids
}

/// Makes one split.
fn split(
    set: &FullSize,
    val: bool,
    counts: &Counts,
    ids: &[u32],
    draft: &Draft,
    progress: &dyn Fn(usize),
) -> Result<FullSizeSplit, SceneError> {
    let name = Made::SPLITS[usize::from(val)];
    let domain = Domain::FullSize(FullSizePart::Entry, val);
    // The sizes are a stream of their own, numbered beyond the entries'.
    let mut sizes = Stream::new(set.seed, domain, u64::MAX);
    let pictures: Vec<Picture> = ids
        .iter()
        .map(|&id| Picture {
            id,
            size: SIZES[sizes.weighted(&SIZES.map(|size| size.1))].0,
        })
        .collect();
    let shown = shown(set.seed, val, counts);

    let path = annotation_path(draft.path(), name);
    let mut out =
        BufWriter::with_capacity(1 << 20, File::create(&path).map_err(io("create", &path))?);
    file::write(set.seed, val, name, (&pictures, &shown), &mut out)
        .map_err(std::io::Error::from)
        .and_then(|()| out.flush())
        .map_err(io("write", &path))?;
    let annotation_bytes = out
        .get_ref()
        .metadata()
        .map_err(io("look at", &path))?
        .len();

    let mut stock = Stock::new(set.seed, val);
    let mut bytes = 0;
    for (index, picture) in pictures.iter().enumerate() {
        let path = draft.path().join(name).join(file_name(name, picture.id));
        bytes += stock.store(index, picture.size, &path)?;
        progress(index + 1);
    }
    let (different, different_bytes) = stock.different();
    Ok(FullSizeSplit {
        counts: SplitSummary {
            pictures: pictures.len(),
            objects: shown.len(),
            labels_per_picture: labels(&shown) as f64 / pictures.len() as f64,
            bytes,
        },
        unlabelled: counts.pictures - counts.labelled,
        annotation_bytes,
        different,
        different_bytes,
    })
}

/// Pairs of a picture and a class that it shows.
fn labels(shown: &[Shown]) -> usize {
    let mut pairs: Vec<(u32, u8)> = shown.iter().map(|one| (one.picture, one.class)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    pairs.len()
}
