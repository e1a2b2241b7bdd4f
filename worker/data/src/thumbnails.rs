//! Something simple to compare a model with: a linear classifier on thumbnails of 8 × 8 pixels.
//!
//! It sees where a picture is bright and which colours it has, and nothing of shapes. A model that is no better has
//! learned nothing of what its pictures show.

mod ridge;

use std::sync::Arc;

use crate::augment::TrainTransform;
use crate::coco::{Dataset, Split};
use crate::files::{BadImage, OnBadImage};
use crate::loader::{LoadError, Loader, LoaderOptions, Purpose, Request};
use ridge::Ridge;

/// Side of a thumbnail, pixels.
const SIDE: u32 = 8;
/// Pictures asked for at a time.
const BATCH: usize = 32;
/// Batches decoded ahead.
const PREFETCH: usize = 8;

/// What the linear classifier says of the validation split.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearScores {
    /// `[N, C]`, N validation samples by sample id, C classes; higher is likelier. Rows of skipped pictures are 0.
    pub scores: Vec<f32>,
    /// Training pictures that it could not learn from.
    pub skipped_train: Vec<BadImage>,
    /// Validation pictures that it could not score.
    pub skipped_val: Vec<BadImage>,
    /// The ridge penalty per sample that fitted best, of features with variance 1.
    pub penalty: f64,
}

/// Why there is no linear classifier.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// No training picture could be read.
    #[error("none of the {pictures} training pictures can be read{}", first.as_ref().map_or_else(String::new, |first| format!(", the first is {first}")))]
    NoPicture {
        /// How many there are.
        pictures: usize,
        /// The first of them, if there is one.
        first: Option<BadImage>,
    },
    /// The decoding threads do not start.
    #[error("cannot start a decoding thread: {0}; give it fewer threads")]
    Threads(#[from] std::io::Error),
    /// A picture cannot be loaded for a reason that skipping does not cover.
    #[error("thumbnails: {0}")]
    Load(#[from] LoadError),
}

/// Fits a linear classifier to the thumbnails of the training split and scores the validation split with it.
///
/// Ridge regression of the labels in closed form (Hoerl and Kennard 1970, <https://doi.org/10.1080/00401706.1970.10488634>),
/// its penalty chosen by the exact leave-one-out error on the training split. Unreadable pictures are left out and
/// listed, as [`OnBadImage::Skip`] has it. The same for any number of `threads`, which decode.
///
/// # Errors
/// [`BaselineError`] when no training picture can be read, naming the first one, or threads do not start.
pub fn linear_baseline(dataset: &Dataset, threads: usize) -> Result<LinearScores, BaselineError> {
    let options = LoaderOptions {
        size: SIDE,
        seed: 0,
        train: TrainTransform::None,
        flip: false,
        cache: None,
        pixels: Default::default(),
        on_bad_image: OnBadImage::Skip,
        threads,
        prefetch: PREFETCH,
    };
    let [train, val] = [&dataset.train, &dataset.val].map(|split| Arc::new(split.clone()));
    let loader = Loader::start(Arc::clone(&train), Arc::clone(&val), options)?;
    let classes = dataset.classes.len();

    let learned = Thumbnails::load(&loader, &train, Purpose::TrainPlain)?;
    let Some(ridge) = Ridge::fit(&learned.pixels, &learned.labels, classes) else {
        return Err(BaselineError::NoPicture {
            pictures: train.samples.len(),
            first: learned.skipped.into_iter().next(),
        });
    };
    let shown = Thumbnails::load(&loader, &val, Purpose::Val)?;
    let mut scores = vec![0.0; val.samples.len() * classes];
    let rows = shown.pixels.as_chunks::<{ ridge::FEATURES }>().0;
    for (&sample, thumbnail) in shown.samples.iter().zip(rows) {
        let start = sample as usize * classes;
        ridge.score(thumbnail, &mut scores[start..start + classes]);
    }
    Ok(LinearScores {
        scores,
        skipped_train: learned.skipped,
        skipped_val: shown.skipped,
        penalty: ridge.penalty,
    })
}

/// A split in small.
#[derive(Default)]
struct Thumbnails {
    /// n sample ids.
    samples: Vec<u32>,
    /// `[n, 8, 8, 3]`.
    pixels: Vec<u8>,
    /// `[n, C]`.
    labels: Vec<f32>,
    skipped: Vec<BadImage>,
}

impl Thumbnails {
    fn load(loader: &Loader, split: &Split, purpose: Purpose) -> Result<Self, LoadError> {
        let ids: Vec<u32> = (0u32..).take(split.samples.len()).collect();
        for (tag, samples) in (0u64..).zip(ids.chunks(BATCH)) {
            let samples = samples.to_vec();
            loader.push(Request {
                tag,
                epoch: 0,
                purpose,
                samples,
            });
        }
        let mut all = Self::default();
        while let Some(batch) = loader.next() {
            let batch = batch?;
            all.samples.extend(batch.sample_ids);
            all.pixels.extend(batch.pixels);
            all.labels.extend(batch.labels);
            all.skipped.extend(batch.skipped);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests;
