//! The place of a made data set: made beside it and moved there whole, or found there whole and used again.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{SceneError, SplitSummary};

/// Says what a folder was made from. Beside the two folders of pictures; other readers of COCO do not look at it.
const MANIFEST: &str = "scenes.json";
/// Held while drawing, so that two processes do not draw into one folder.
const LOCK: &str = ".lock";

/// What [`MANIFEST`] holds.
pub(super) trait Manifest: Serialize + DeserializeOwned {
    /// Names of the training and the validation split.
    const SPLITS: [&'static str; 2];

    /// What was made of the two.
    fn splits(&self) -> [SplitSummary; 2];
}

pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> SceneError {
    let path = path.to_path_buf();
    move |source| SceneError::Io {
        doing,
        path,
        source,
    }
}

/// What is at a set's place.
pub(super) enum Place<M> {
    /// Nothing, or an empty folder.
    Free,
    /// The very set, complete.
    Made(M),
}

/// Looks at `dir`; anything but the complete set or nothing is an error that says why. `differs` says in which
/// parameters a manifest is not the wanted one, if it is not.
pub(super) fn look<M: Manifest>(
    dir: &Path,
    differs: impl Fn(&M) -> Option<String>,
) -> Result<Place<M>, SceneError> {
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
    let Ok(manifest) = serde_json::from_slice::<M>(&text) else {
        return occupied(format!(
            "its {MANIFEST} is not one of such a set, drawn by this version"
        ));
    };
    if let Some(other) = differs(&manifest) {
        return occupied(format!("it was drawn with other parameters: {other}"));
    }
    for (split, summary) in M::SPLITS.into_iter().zip(manifest.splits()) {
        let folder = dir.join(split);
        let (pictures, bytes) = count(&folder).map_err(io("list", &folder))?;
        if (pictures, bytes) != (summary.pictures, summary.bytes) {
            return occupied(format!(
                "{split} holds {pictures} pictures of {bytes} bytes, drawn were {} of {}",
                summary.pictures, summary.bytes
            ));
        }
        if !annotation_path(dir, split).is_file() {
            return occupied(format!(
                "{} is missing",
                annotation_path(dir, split).display()
            ));
        }
    }
    Ok(Place::Made(manifest))
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

pub(super) fn annotation_path(dir: &Path, split: &str) -> PathBuf {
    dir.join("annotations")
        .join(format!("instances_{split}.json"))
}

/// The folder being drawn: a sibling of the target, removed again unless [`Draft::finish`] moves it into place.
pub(super) struct Draft {
    target: PathBuf,
    path: PathBuf,
    lock: Option<File>,
}

impl Draft {
    /// Makes the sibling folder, empty, and keeps other processes out of it.
    pub(super) fn begin(target: &Path, splits: [&str; 2]) -> Result<Self, SceneError> {
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
        // What a process that died while drawing left behind, be it of another kind of set.
        for entry in fs::read_dir(&draft.path).map_err(io("list", &draft.path))? {
            let path = entry.map_err(io("list", &draft.path))?.path();
            if path.is_dir() {
                fs::remove_dir_all(&path).map_err(io("empty", &path))?;
            } else if path.file_name() != Some(LOCK.as_ref()) {
                fs::remove_file(&path).map_err(io("remove", &path))?;
            }
        }
        for part in [splits[0], splits[1], "annotations"] {
            let part = draft.path.join(part);
            fs::create_dir_all(&part).map_err(io("create", &part))?;
        }
        Ok(draft)
    }

    /// The folder to make the set in.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the manifest, then moves the whole into place.
    pub(super) fn finish(mut self, manifest: &impl Manifest) -> Result<(), SceneError> {
        let path = self.path.join(MANIFEST);
        let text = serde_json::to_vec_pretty(manifest)
            .map_err(std::io::Error::from)
            .map_err(io("write", &path))?;
        fs::write(&path, text).map_err(io("write", &path))?;
        let lock = self.path.join(LOCK);
        fs::remove_file(&lock).map_err(io("remove", &lock))?;
        fs::rename(&self.path, &self.target).map_err(io("move the drawn set to", &self.target))?;
        self.lock = None;
        Ok(())
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
