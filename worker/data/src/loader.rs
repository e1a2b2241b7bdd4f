//! Batches in order: decodes ahead on several threads, never further than there is room.

use crate::{
    augment::TrainTransform,
    coco::Split,
    files::{BadImage, OnBadImage},
};
use std::sync::Arc;

/// How a loader works.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// Side of the square pictures, pixels.
    pub size: u32,
    /// Seed of the augmentation.
    pub seed: u64,
    /// Augmentation of training requests.
    pub train: TrainTransform,
    /// What a bad picture does.
    pub on_bad_image: OnBadImage,
    /// Decoding threads, at least 1.
    pub threads: usize,
    /// Batches that may be decoded or under way ahead of the caller, at least 1.
    pub prefetch: usize,
}

/// Which transform a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Augmented, from the training split.
    Train,
    /// Plain, from the validation split.
    Val,
}

/// One batch to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Caller's own number, given back in [`Batch::tag`].
    pub tag: u64,
    /// Epoch, for the augmentation.
    pub epoch: u64,
    /// Split and transform.
    pub purpose: Purpose,
    /// Sample ids, in order.
    pub samples: Vec<u32>,
}

/// A batch of B pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The request's number.
    pub tag: u64,
    /// B sample ids, in the request's order, without the skipped.
    pub sample_ids: Vec<u32>,
    /// `[B, S, S, 3]`, uint8.
    pub pixels: Vec<u8>,
    /// `[B, C]`, 1 where the class is shown.
    pub labels: Vec<f32>,
    /// Pictures that were read with a harmless warning.
    pub warnings: u64,
    /// Pictures left out ([`OnBadImage::Skip`]).
    pub skipped: Vec<BadImage>,
}

/// Why a batch could not be made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// A picture is missing or unreadable.
    #[error("picture {}: image id {}: {}", .0.path.display(), .0.image_id, .0.reason)]
    BadImage(BadImage),
    /// A request names a sample that the split does not have.
    #[error("sample id {id} is outside the {split} split of {len} samples")]
    UnknownSample {
        /// The id.
        id: u32,
        /// Name of the split.
        split: String,
        /// Its length.
        len: usize,
    },
}

/// Decodes requested batches ahead and hands them out in the order of the requests.
#[derive(Debug)]
pub struct Loader {}

impl Loader {
    /// Starts the threads.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        train: Arc<Split>,
        val: Arc<Split>,
        options: LoaderOptions,
    ) -> std::io::Result<Self> {
        let _ = (train, val, options);
        todo!()
    }

    /// Queues a batch; never blocks. Decoding starts when it is within `prefetch` of the next batch handed out.
    pub fn push(&self, request: Request) {
        let _ = request;
        todo!()
    }

    /// The next batch in the order of the requests, waiting for it; `None` when nothing is queued.
    pub fn next(&self) -> Option<Result<Batch, LoadError>> {
        todo!()
    }
}
