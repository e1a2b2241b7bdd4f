//! The names in the checkpoints' folder: which are checkpoints, where `last` and `best` lead, what may go.

use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use domain::retention::{Checkpoint, Retention, retain};

use super::error::CheckpointError;
use super::manifest::Manifest;
use super::{Entry, children, disk, folder_name};
use crate::run_dir::is_half_written;

const LAST: &str = "last";
const BEST: &str = "best";
/// The best's mAP is part of this link's name, for people who look at the folder.
const BEST_MAP: &str = "best-map-";

/// Every folder named like a checkpoint and with a manifest, by step; whether it verifies is another question.
pub(super) fn folders(root: &Path) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
    let step = |path: &PathBuf| {
        path.file_name()?
            .to_str()?
            .strip_prefix("step-")?
            .parse()
            .ok()
    };
    let mut found: Vec<(u64, PathBuf)> = children(root)?
        .into_iter()
        .filter_map(|path| Some((step(&path)?, path)))
        .filter(|(step, path)| path.ends_with(folder_name(*step)) && Manifest::exists(path))
        .collect();
    found.sort();
    Ok(found)
}

/// The committed checkpoints, by step.
pub(super) fn scan(root: &Path) -> Result<Vec<Entry>, CheckpointError> {
    let target = |link: &str| fs::read_link(root.join(link)).ok();
    let (last, best) = (target(LAST), target(BEST));
    let entry = |(step, path): (u64, PathBuf)| {
        let manifest = Manifest::read(&path)
            .ok()
            .filter(|manifest| manifest.step == step)?;
        let pointed_at =
            |link: &Option<PathBuf>| link.as_deref() == Some(Path::new(&folder_name(step)));
        Some(Entry {
            step,
            generation: manifest.generation,
            bytes: manifest.bytes(),
            map: manifest.map,
            last: pointed_at(&last),
            best: pointed_at(&best),
            path,
        })
    };
    Ok(folders(root)?.into_iter().filter_map(entry).collect())
}

/// Makes `last`, `best` and `best-map-…` lead where they should; what should go is only named.
pub(super) fn put_right(root: &Path, keep: NonZeroU32) -> Result<Retention, CheckpointError> {
    let entries = scan(root)?;
    let known = |entry: &Entry| Checkpoint {
        steps_done: entry.step,
        map: entry.map,
        named: false,
    };
    let retention = retain(&entries.iter().map(known).collect::<Vec<_>>(), keep);
    let best = entries
        .iter()
        .find(|entry| retention.best == Some(entry.step));
    let mut wanted = Vec::new();
    wanted.extend(
        retention
            .last
            .map(|step| (LAST.to_owned(), folder_name(step))),
    );
    if let Some(entry) = best {
        wanted.push((BEST.to_owned(), folder_name(entry.step)));
        let figure = format!("{BEST_MAP}{:.4}", entry.map.unwrap_or_default());
        wanted.push((figure, folder_name(entry.step)));
    }
    let mut changed = false;
    for (link, target) in &wanted {
        let link = root.join(link);
        if fs::read_link(&link).ok().as_deref() != Some(Path::new(target)) {
            disk::point(&link, Path::new(target))?;
            changed = true;
        }
    }
    for path in children(root)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let pointer = [LAST, BEST].contains(&&*name) || name.starts_with(BEST_MAP);
        if pointer && path.is_symlink() && !wanted.iter().any(|(link, _)| *link == *name) {
            disk::remove_file(&path)?;
            changed = true;
        }
    }
    if changed {
        disk::sync_dir(root)?;
    }
    Ok(retention)
}

/// Removes checkpoints, oldest first; one that cannot be removed stays and is no reason to fail.
pub(super) fn remove(root: &Path, steps: &[u64]) -> Vec<PathBuf> {
    let mut removed = Vec::new();
    for step in steps {
        let folder = root.join(folder_name(*step));
        // Out of sight first: a half-removed folder must not look like a checkpoint.
        let hidden = root.join(format!(".{}.removed", folder_name(*step)));
        let gone = disk::remove_dir(&hidden)
            .and_then(|()| disk::rename(&folder, &hidden))
            .and_then(|()| disk::remove_dir(&hidden));
        match gone {
            Ok(()) => removed.push(folder),
            Err(error) => tracing::warn!(%error, "an old checkpoint stays"),
        }
    }
    removed
}

/// Removes what an interrupted write, replacement or removal left behind.
pub(super) fn sweep(root: &Path) -> Result<(), CheckpointError> {
    for path in children(root)? {
        if let Some(folder) = replaced(&path).filter(|folder| !folder.exists()) {
            // Cut short between the two renames of a replacement: the older one is still whole.
            disk::rename(&path, &folder)?;
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let left_behind = [".partial", ".replaced", ".removed"]
            .iter()
            .any(|end| name.ends_with(end));
        if name.starts_with('.') && left_behind {
            disk::remove_dir(&path)?;
        } else if is_half_written(&name) {
            disk::remove_file(&path)?;
        } else if name.starts_with("step-")
            && !name.ends_with(".damaged")
            && path.is_dir()
            && !Manifest::exists(&path)
        {
            disk::remove_dir(&path)?;
        }
    }
    Ok(())
}

/// Where a checkpoint lies while another takes its name.
pub(super) fn replaced_name(root: &Path, step: u64) -> PathBuf {
    root.join(format!(".{}.replaced", folder_name(step)))
}

/// The checkpoint's own name, if this is where it lies while another takes it.
fn replaced(path: &Path) -> Option<PathBuf> {
    let name = path
        .file_name()?
        .to_str()?
        .strip_prefix('.')?
        .strip_suffix(".replaced")?;
    Manifest::exists(path).then(|| path.with_file_name(name))
}

/// `path.ending`, or the first `path.ending-K` that is free.
pub(super) fn free_name(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let first = path.with_file_name(format!("{name}.{ending}"));
    let numbered = |k: u32| path.with_file_name(format!("{name}-{k}.{ending}"));
    std::iter::once(first)
        .chain((2..).map(numbered))
        .find(|path| !path.exists())
        .unwrap_or_else(|| path.to_owned())
}
