//! `worker pixels`: exactly what the model is shown, for whoever wants to look or to compare with another program.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use data::augment::TrainTransform;
use data::coco::{DataPaths, Dataset, Options};
use data::files::OnBadImage;
use data::loader::{Loader, LoaderOptions, Purpose, Request};
use model::weights;
use tch::Tensor;

use crate::device;
use crate::error::WorkerError;

/// Write a split's pictures as the model is shown them in evaluation, with their labels.
///
/// The file is safetensors: `pixels` [N, S, S, 3] uint8 and `labels` [N, C] float32, in sample id order.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  worker pixels --data /data/coco --split val --size 128 --to val.safetensors"
)]
pub(crate) struct Pixels {
    /// Root of a COCO-format data set
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Which split
    #[arg(long, value_enum, default_value_t = Which::Train)]
    split: Which,
    /// Side of the pictures, pixels
    #[arg(long, default_value_t = 448)]
    size: u32,
    /// File to write
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// A split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Train,
    Val,
}

/// Decodes and writes.
///
/// # Errors
/// When the data set cannot be read or the file not written.
pub(crate) fn run(arguments: &Pixels) -> Result<(), WorkerError> {
    let input = |what, path: &PathBuf, reason: String| WorkerError::Input {
        what,
        path: path.display().to_string(),
        reason,
    };
    let paths = DataPaths {
        root: Some(arguments.data.clone()),
        ..DataPaths::default()
    };
    let dataset = Dataset::open(&paths, &Options::default())
        .map_err(|error| input("data set", &arguments.data, error.to_string()))?;
    let (split, purpose) = match arguments.split {
        Which::Train => (&dataset.train, Purpose::TrainPlain),
        Which::Val => (&dataset.val, Purpose::Val),
    };
    let (samples, classes) = (split.samples.len(), dataset.classes.len());
    let threads = device::processors()?.get();
    let options = LoaderOptions {
        size: arguments.size,
        seed: 0,
        train: TrainTransform::None,
        flip: false,
        cache: None,
        pixels: Default::default(),
        on_bad_image: OnBadImage::Error,
        threads,
        prefetch: 2,
    };
    let loader = Loader::start(
        Arc::new(dataset.train.clone()),
        Arc::new(dataset.val.clone()),
        options,
    )
    .map_err(|source| WorkerError::Threads { threads, source })?;
    let ids: Vec<u32> = (0..samples as u32).collect();
    for chunk in ids.chunks(32) {
        loader.push(Request {
            tag: 0,
            epoch: 0,
            purpose,
            samples: chunk.to_vec(),
        });
    }
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    while let Some(batch) = loader.next() {
        let batch = batch?;
        pixels.extend(batch.pixels);
        labels.extend(batch.labels);
    }
    let torch = |source| WorkerError::Torch { step: 0, source };
    let side = i64::from(arguments.size);
    let pixels = Tensor::f_from_slice(&pixels)
        .and_then(|t| t.f_view([samples as i64, side, side, 3]))
        .map_err(torch)?;
    let labels = Tensor::f_from_slice(&labels)
        .and_then(|t| t.f_view([samples as i64, classes as i64]))
        .map_err(torch)?;
    let named = [("pixels".to_owned(), pixels), ("labels".to_owned(), labels)];
    let bytes = weights::to_safetensors(&named, &BTreeMap::new())?;
    std::fs::write(&arguments.to, bytes)
        .map_err(|error| input("file", &arguments.to, error.to_string()))
}
