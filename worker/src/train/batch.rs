//! Pictures of one pass: from the loader's bytes to numbers on the device.

use std::collections::BTreeSet;

use data::loader::Batch;
use proto::v1;
use tch::{Device, Kind, Tensor};

/// Below this size CPUs get one plane a channel instead of channels last: a step of resnet18 takes a tenth to a quarter
/// less time with planes at 64 pixels, the same at 128 and a fifteenth more at 224; resnet50 is alike at 64 already.
const PLANES_BELOW: i64 = 128;

/// Pictures that go through the model in one pass, where it wants them.
#[derive(Debug)]
pub(crate) struct DeviceBatch {
    /// `[B, 3, S, S]`, normalised.
    pub(crate) images: Tensor,
    /// `[B, C]`, 1 where a class is shown.
    pub(crate) targets: Tensor,
    /// B sample ids, without the skipped.
    pub(crate) sample_ids: Vec<u32>,
    /// How many of them are of each micro-batch, in order; 0 where all were skipped.
    pub(crate) sizes: Vec<i64>,
    /// Micro-batches of the pass, with those that have been taken out.
    pub(crate) micro_batches: usize,
    /// Pictures that could not be read.
    pub(crate) skipped: Vec<v1::SkippedSample>,
}

impl DeviceBatch {
    /// B.
    pub(crate) fn len(&self) -> usize {
        self.sample_ids.len()
    }

    /// Takes out the micro-batches of a single sample, and those of none; returns the samples.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn without_single_samples(&mut self) -> Result<Vec<u32>, tch::TchError> {
        if self.sizes.iter().all(|size| *size > 1) {
            return Ok(Vec::new());
        }
        let of_each = self
            .sizes
            .iter()
            .flat_map(|&size| (0..size).map(move |_| size > 1));
        let stays: Vec<bool> = of_each.collect();
        let (mut places, mut kept, mut single) = (Vec::new(), Vec::new(), Vec::new());
        for ((place, &sample), stays) in (0i64..).zip(&self.sample_ids).zip(stays) {
            if stays {
                places.push(place);
                kept.push(sample);
            } else {
                single.push(sample);
            }
        }
        let places = Tensor::f_from_slice(&places)?.f_to_device(self.images.device())?;
        self.images = self.images.f_index_select(0, &places)?;
        self.targets = self.targets.f_index_select(0, &places)?;
        self.sample_ids = kept;
        self.sizes.retain(|size| *size > 1);
        Ok(single)
    }
}

/// How pixels become numbers.
#[derive(Debug)]
pub(crate) struct Normaliser {
    /// Of the images, which is what the model then computes in.
    compute: Kind,
    classes: i64,
    size: i64,
    /// `[3]` each, in units of a byte; of the targets' kind, and on the device.
    mean: Tensor,
    scale: Tensor,
}

impl Normaliser {
    /// Subtracts `mean` and divides by `std` (RGB in 0..1), on the device; images are of the kind `compute`, targets of
    /// the kind `kind`.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn new(
        mean: &[f64],
        std: &[f64],
        size: u32,
        classes: usize,
        (kind, compute): (Kind, Kind),
        device: Device,
    ) -> Result<Self, tch::TchError> {
        let mean: Vec<f64> = mean.iter().map(|mean| mean * 255.0).collect();
        let scale: Vec<f64> = std.iter().map(|std| 1.0 / (std * 255.0)).collect();
        let there = |values: &[f64]| {
            Tensor::f_from_slice(values)?
                .f_to_kind(kind)?
                .f_to_device(device)
        };
        Ok(Self {
            compute,
            classes: classes as i64,
            size: i64::from(size),
            mean: there(&mean)?,
            scale: there(&scale)?,
        })
    }

    /// Pixels `[B, S, S, 3]` as bytes to `[B, 3, S, S]` as numbers. The copy to a CUDA device is asynchronous.
    ///
    /// # Errors
    /// When the pixels are not that many, or the device fails.
    pub(crate) fn images(&self, pixels: &[u8], batch: usize) -> Result<Tensor, tch::TchError> {
        let shape = [batch as i64, self.size, self.size, 3];
        let mut numbers = nccl_rs::numbers_of(pixels, &shape, &self.mean)?;
        let _ = numbers.f_sub_(&self.mean)?.f_mul_(&self.scale)?;
        // Only strides change: rows of RGB triples are what libtorch calls channels last, and what CUDA likes best.
        let images = numbers.f_to_kind(self.compute)?.f_permute([0, 3, 1, 2])?;
        if self.device() == Device::Cpu && self.size < PLANES_BELOW {
            return images.f_contiguous();
        }
        Ok(images)
    }

    /// Where its numbers are.
    pub(crate) fn device(&self) -> Device {
        self.mean.device()
    }

    /// Targets `[B, C]` where the images are, likewise asynchronous.
    fn targets(&self, labels: &[f32], batch: usize) -> Result<Tensor, tch::TchError> {
        let labels = Tensor::f_from_slice(labels)?.f_view([batch as i64, self.classes])?;
        let device = self.device();
        let there = if device.is_cuda() {
            let pinned = labels.f_pin_memory(device)?;
            pinned.f_to_device_(device, Kind::Float, true, false)?
        } else {
            labels
        };
        there.f_to_kind(self.mean.kind())
    }

    /// The batch of a pass, with the samples that were asked for of each micro-batch.
    pub(crate) fn batch(
        &self,
        batch: Batch,
        asked: &[Vec<u32>],
    ) -> Result<DeviceBatch, tch::TchError> {
        let size = batch.sample_ids.len();
        let bad: BTreeSet<u32> = batch.skipped.iter().map(|bad| bad.sample).collect();
        let read =
            |samples: &Vec<u32>| samples.iter().filter(|id| !bad.contains(id)).count() as i64;
        let sizes: Vec<i64> = asked.iter().map(read).collect();
        let images = self.images(&batch.pixels, size)?;
        let targets = self.targets(&batch.labels, size)?;
        let skipped = batch
            .skipped
            .into_iter()
            .map(|bad| v1::SkippedSample {
                sample_id: bad.sample,
                reason: format!("{}: {}", bad.path.display(), bad.reason),
            })
            .collect();
        Ok(DeviceBatch {
            images,
            targets,
            sample_ids: batch.sample_ids,
            micro_batches: sizes.len(),
            sizes,
            skipped,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_micro_batch_of_a_single_sample_is_taken_out_of_its_pass() {
        let numbers = |of: &[f32]| Tensor::from_slice(of).view([-1, 1]);
        let mut batch = DeviceBatch {
            images: numbers(&[0.0, 1.0, 2.0, 3.0, 4.0]),
            targets: numbers(&[0.0, 1.0, 2.0, 3.0, 4.0]),
            sample_ids: vec![10, 11, 12, 13, 14],
            sizes: vec![2, 0, 1, 2],
            micro_batches: 4,
            skipped: Vec::new(),
        };
        assert_eq!(batch.without_single_samples().unwrap(), [12]);
        assert_eq!((batch.sizes, batch.micro_batches), (vec![2, 2], 4));
        assert_eq!(batch.sample_ids, [10, 11, 13, 14]);
        assert_eq!(batch.images, numbers(&[0.0, 1.0, 3.0, 4.0]));
        assert_eq!(batch.targets, numbers(&[0.0, 1.0, 3.0, 4.0]));
    }
}
