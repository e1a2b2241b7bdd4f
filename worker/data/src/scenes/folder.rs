//! The folder of a drawn set: drawn beside its place and moved there whole, or found there whole and used again.

use std::fs::{self, File, TryLockError};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::annotations::{self, Record, file_name, image_id};
use super::picture::{Picture, Split};
use super::{SceneError, SceneSet, SplitSummary};

/// Says what a folder was drawn from. Beside the two folders of pictures; other readers of COCO do not look at it.
const MANIFEST: &str = "scenes.json";
/// Held while drawing, so that two processes do not draw into one folder.
const LOCK: &str = ".lock";
/// Raised whenever the same parameters give other pictures, so that an old folder is not taken for a new one.
const DRAWING: u32 = 1;
/// JPEG quality of the pictures, about COCO's own.
const QUALITY: u8 = 90;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Manifest {
    drawing: u32,
    train: usize,
    val: usize,
    seed: u64,
    scale: f32,
    splits: [SplitSummary; 2],
}

impl Manifest {
    fn is_of(&self, set: &SceneSet) -> bool {
        (self.drawing, self.train, self.val, self.seed, self.scale)
            == (DRAWING, set.train, set.val, set.seed, set.scale)
    }
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> SceneError {
    let path = path.to_path_buf();
    move |source| SceneError::Io {
        doing,
        path,
        source,
    }
}

/// What is at a set's place.
pub(super) enum Place {
    /// Nothing, or an empty folder.
    Free,
    /// The very set, complete.
    Drawn([SplitSummary; 2]),
}

/// Looks at `dir`; anything but the complete set or nothing is an error that says why.
pub(super) fn look(set: &SceneSet, dir: &Path) -> Result<Place, SceneError> {
    let occupied = |why: String| {
        Err(SceneError::Occupied {
            dir: dir.to_path_buf(),
            why,
        })
    };
    if !dir.try_exists().map_err(io("look at", dir))? {
        return Ok(Place::Free);
    }
    if !dir.is_dir() {
        return occupied("it is not a folder".into());
    }
    if fs::read_dir(dir).map_err(io("list", dir))?.next().is_none() {
        return Ok(Place::Free);
    }
    let path = dir.join(MANIFEST);
    let Ok(text) = fs::read(&path) else {
        return occupied(format!("it holds no readable {MANIFEST}"));
    };
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&text) else {
        return occupied(format!(
            "its {MANIFEST} is not one of a set drawn by this version"
        ));
    };
    if !manifest.is_of(set) {
        return occupied(format!(
            "it was drawn with other parameters: {} training and {} validation pictures, seed {}, scale {}, drawing {}",
            manifest.train, manifest.val, manifest.seed, manifest.scale, manifest.drawing
        ));
    }
    for (split, summary) in [Split::Train, Split::Val].into_iter().zip(&manifest.splits) {
        let folder = dir.join(split.name());
        let (pictures, bytes) = count(&folder).map_err(io("list", &folder))?;
        if (pictures, bytes) != (summary.pictures, summary.bytes) {
            return occupied(format!(
                "{} holds {pictures} pictures of {bytes} bytes, drawn were {} of {}",
                split.name(),
                summary.pictures,
                summary.bytes
            ));
        }
        if !annotation_path(dir, split).is_file() {
            return occupied(format!(
                "{} is missing",
                annotation_path(dir, split).display()
            ));
        }
    }
    Ok(Place::Drawn(manifest.splits))
}

/// Number and total size of the files in a folder.
fn count(folder: &Path) -> std::io::Result<(usize, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(folder)? {
        files += 1;
        bytes += entry?.metadata()?.len();
    }
    Ok((files, bytes))
}

fn annotation_path(dir: &Path, split: Split) -> PathBuf {
    dir.join("annotations")
        .join(format!("instances_{}.json", split.name()))
}

/// The folder being drawn: a sibling of the target, removed again unless [`Draft::finish`] moves it into place.
pub(super) struct Draft {
    target: PathBuf,
    path: PathBuf,
    lock: Option<File>,
}

impl Draft {
    /// Makes the sibling folder, empty, and keeps other processes out of it.
    pub(super) fn begin(target: &Path) -> Result<Self, SceneError> {
        let Some(name) = target.file_name() else {
            return Err(SceneError::Occupied {
                dir: target.to_path_buf(),
                why: "it has no name of its own".into(),
            });
        };
        let mut draft = std::ffi::OsString::from(".");
        draft.push(name);
        draft.push(".drawing");
        let path = target.with_file_name(draft);
        fs::create_dir_all(&path).map_err(io("create", &path))?;
        let lock = File::create(path.join(LOCK)).map_err(io("create", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(SceneError::Busy {
                    dir: target.to_path_buf(),
                    draft: path,
                });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock", &path)(source)),
        }
        let draft = Draft {
            target: target.to_path_buf(),
            path,
            lock: Some(lock),
        };
        // What a process that died while drawing left behind.
        for part in [Split::Train.name(), Split::Val.name(), "annotations"] {
            let part = draft.path.join(part);
            if part.exists() {
                fs::remove_dir_all(&part).map_err(io("empty", &part))?;
            }
            fs::create_dir_all(&part).map_err(io("create", &part))?;
        }
        Ok(draft)
    }

    /// Stores a picture and says what its annotation file is to say of it.
    pub(super) fn store(
        &self,
        set: &SceneSet,
        split: Split,
        index: usize,
        picture: &Picture,
    ) -> Result<Record, SceneError> {
        let path = self
            .path
            .join(split.name())
            .join(file_name(image_id(set, split, index)));
        let jpeg = encode(picture).map_err(|source| SceneError::Encode {
            path: path.clone(),
            source,
        })?;
        fs::write(&path, &jpeg).map_err(io("write", &path))?;
        Ok(Record::new(index, picture, jpeg.len() as u64))
    }

    /// Writes annotations and manifest, then moves the whole into place.
    pub(super) fn finish(
        mut self,
        set: &SceneSet,
        train: &[Record],
        val: &[Record],
    ) -> Result<[SplitSummary; 2], SceneError> {
        for (split, records) in [(Split::Train, train), (Split::Val, val)] {
            let path = annotation_path(&self.path, split);
            let mut out = BufWriter::new(File::create(&path).map_err(io("create", &path))?);
            annotations::write(set, split, records, &mut out)
                .map_err(std::io::Error::from)
                .and_then(|()| out.flush())
                .map_err(io("write", &path))?;
        }
        let splits = [SplitSummary::of(train), SplitSummary::of(val)];
        let (train, val, seed, scale) = (set.train, set.val, set.seed, set.scale);
        let manifest = Manifest {
            drawing: DRAWING,
            train,
            val,
            seed,
            scale,
            splits,
        };
        let path = self.path.join(MANIFEST);
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(std::io::Error::from)
            .map_err(io("write", &path))?;
        fs::write(&path, text).map_err(io("write", &path))?;
        let lock = self.path.join(LOCK);
        fs::remove_file(&lock).map_err(io("remove", &lock))?;
        fs::rename(&self.path, &self.target).map_err(io("move the drawn set to", &self.target))?;
        self.lock = None;
        Ok(manifest.splits)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // The error that brought us here is the one to report; a folder left behind is cleared by the next drawing.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The picture as a JPEG file: chroma at half resolution as in most of COCO, one component if it is grey.
fn encode(picture: &Picture) -> Result<Vec<u8>, jpeg_encoder::EncodingError> {
    let canvas = &picture.canvas;
    let byte = |value: f32| (value + 0.5) as u8;
    let (pixels, colour): (Vec<u8>, _) = if picture.gray {
        // The luma of JPEG itself (ITU-R BT.601).
        let luma = canvas
            .pixels
            .iter()
            .map(|&[r, g, b]| byte(0.299 * r + 0.587 * g + 0.114 * b))
            .collect();
        (luma, jpeg_encoder::ColorType::Luma)
    } else {
        (
            canvas
                .pixels
                .iter()
                .flat_map(|pixel| pixel.map(byte))
                .collect(),
            jpeg_encoder::ColorType::Rgb,
        )
    };
    let mut jpeg = Vec::with_capacity(pixels.len() / 4);
    let mut encoder = jpeg_encoder::Encoder::new(&mut jpeg, QUALITY);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_2_2);
    let side =
        |n: usize| u16::try_from(n).expect("no picture is wider or higher than COCO's, 640 pixels");
    encoder.encode(&pixels, side(canvas.width), side(canvas.height), colour)?;
    Ok(jpeg)
}
