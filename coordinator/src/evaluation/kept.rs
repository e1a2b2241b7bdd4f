//! Scores of every validation image, kept in the run directory for the last and the best evaluation: what comparing runs
//! image by image, precision-recall curves and the worst mistakes are made from.
//!
//! `scores/step-NNNNNNNN.safetensors`, and the links `scores/last.safetensors` and `scores/best.safetensors`. A file is
//! written beside its name, flushed and renamed: complete or not there. It is read as data, nothing in it runs.
//!
//! Tensors, `n` images in the order of the annotation file and `c` classes: `logits` float32 `[n, c]`, `labels` uint8
//! `[n, c]` (0 or 1), `sample_ids` int64 `[n]` (place in the annotation file's list), `image_ids` int64 `[n]` (COCO's `id`),
//! `skipped` int64 `[k]` (sample ids without scores). The header's `hgat_scores` is a JSON object, [`About`].

use std::path::{Path, PathBuf};
use std::{fs, io};

use domain::labels::Labels;
use domain::scores::{Layout, ScoreError, ScoreMatrix};
use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

/// The version that is written, and the only one that is read.
pub(super) const VERSION: u32 = 1;
/// The header's key.
pub(super) const ABOUT: &str = "hgat_scores";
pub(super) const LAST: &str = "last.safetensors";
pub(super) const BEST: &str = "best.safetensors";

/// Why kept scores cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// What the operating system refuses.
    #[error("{}: cannot {action} ({source}): scores of images are not kept for this evaluation", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// There is no such file.
    #[error(
        "{}: there are no scores of single images here: they are kept of the last and the best evaluation, by runs of this \
         version on", .path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what it should be.
    #[error("{}: is no file of scores ({problem}): evaluate the checkpoint again by `worker predict`", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// What the header says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The file's version.
    pub version: u32,
    /// The run's name.
    pub run_id: String,
    /// Steps committed before the evaluation.
    pub step: u64,
    /// The epoch that had ended, from 1.
    pub epoch: u32,
    /// The annotation file of the split.
    pub annotations: String,
    /// Class names in class order.
    pub classes: Vec<String>,
    /// (name, class indices) of each group.
    pub groups: Vec<(String, Vec<usize>)>,
}

/// The scores of one evaluation, read back.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptScores {
    /// What they are of.
    pub about: About,
    /// `[n]`: places in the annotation file's list of images.
    pub sample_ids: Vec<u64>,
    /// `[n]`: COCO's image ids.
    pub image_ids: Vec<u64>,
    /// `[n, c]`, row by row.
    pub logits: Vec<f32>,
    /// `[n, c]`.
    pub labels: Labels,
    /// Sample ids that have no scores.
    pub skipped: Vec<u64>,
}

impl KeptScores {
    /// Reads a file.
    ///
    /// # Errors
    /// [`KeptError::Missing`], [`KeptError::Content`], or what the operating system refuses.
    pub fn read(path: &Path) -> Result<Self, KeptError> {
        let bytes = fs::read(path).map_err(|source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::NotFound => KeptError::Missing { path },
                _ => KeptError::Io {
                    action: "read",
                    path,
                    source,
                },
            }
        })?;
        parse(&bytes).map_err(|problem| KeptError::Content {
            path: path.to_owned(),
            problem,
        })
    }

    /// The scores, for the figures.
    ///
    /// # Errors
    /// [`ScoreError::WrongShape`], which a file that was read cannot give.
    pub fn matrix(&self) -> Result<ScoreMatrix<'_>, ScoreError> {
        let (samples, classes) = (self.labels.samples(), self.labels.classes());
        ScoreMatrix::new(&self.logits, samples, classes, Layout::SampleMajor)
    }
}

/// `scores/last.safetensors` of a run directory.
#[must_use]
pub fn last_scores(run_dir: &Path) -> PathBuf {
    run_dir.join("scores").join(LAST)
}

/// `scores/best.safetensors` of a run directory.
#[must_use]
pub fn best_scores(run_dir: &Path) -> PathBuf {
    run_dir.join("scores").join(BEST)
}

fn parse(bytes: &[u8]) -> Result<KeptScores, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let about = header
        .metadata()
        .as_ref()
        .and_then(|header| header.get(ABOUT))
        .ok_or_else(|| format!("its header has no {ABOUT}"))?;
    let about: About =
        serde_json::from_str(about).map_err(|error| format!("its header's {ABOUT}: {error}"))?;
    if about.version != VERSION {
        return Err(format!(
            "it is of version {}, this program reads {VERSION}",
            about.version
        ));
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let tensor = |name: &str, dtype: Dtype, rank: usize| {
        let found = tensors.tensor(name).map_err(|error| error.to_string())?;
        if found.dtype() == dtype && found.shape().len() == rank {
            return Ok(found);
        }
        Err(format!("{name} is not {rank}-dimensional {dtype:?}"))
    };
    let whole = |name: &str| -> Result<Vec<u64>, String> {
        let words = tensor(name, Dtype::I64, 1)?;
        let words = words.data().chunks_exact(8);
        words
            .map(|word| {
                let word = i64::from_le_bytes(word.try_into().map_err(|_| "cut off")?);
                u64::try_from(word).map_err(|_| format!("{name} holds {word}"))
            })
            .collect()
    };
    let (logits, shown) = (
        tensor("logits", Dtype::F32, 2)?,
        tensor("labels", Dtype::U8, 2)?,
    );
    let (sample_ids, image_ids, skipped) =
        (whole("sample_ids")?, whole("image_ids")?, whole("skipped")?);
    let shape = [sample_ids.len(), about.classes.len()];
    if logits.shape() != shape || shown.shape() != shape || image_ids.len() != shape[0] {
        return Err(format!("its tensors are not of {shape:?} images × classes"));
    }
    let outside = |group: &(String, Vec<usize>)| group.1.iter().any(|class| *class >= shape[1]);
    if about.groups.iter().any(outside) {
        return Err("a group names a class that is not there".to_owned());
    }
    let count = |n: usize| u32::try_from(n).map_err(|error| error.to_string());
    let mut labels = Labels::new(count(shape[0])?, count(shape[1])?);
    for (sample, row) in (0u32..).zip(shown.data().chunks(shape[1].max(1))) {
        for (class, _) in (0u32..).zip(row).filter(|(_, label)| **label != 0) {
            labels
                .insert(sample, class)
                .map_err(|error| error.to_string())?;
        }
    }
    let words = logits.data().chunks_exact(4);
    Ok(KeptScores {
        about,
        sample_ids,
        image_ids,
        logits: words
            .map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect(),
        labels,
        skipped,
    })
}
