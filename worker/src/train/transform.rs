//! The augmentation that the spec names.

use data::augment::TrainTransform;
use data::augment::pixels::PixelAugment;
use data::files::OnBadImage;
use proto::v1::DataSpec;

use crate::error::WorkerError;

/// The training transform.
///
/// # Errors
/// When its name is unknown or the figures do not fit it.
pub(crate) fn parse(spec: &DataSpec) -> Result<TrainTransform, WorkerError> {
    let transform = match spec.transform.as_str() {
        "random_resized_crop" => TrainTransform::random_resized_crop(),
        "multi_scale_crop" => match TrainTransform::multi_scale_crop() {
            TrainTransform::MultiScaleCrop {
                scales,
                max_distort,
                ..
            } => TrainTransform::MultiScaleCrop {
                resize: spec.resize,
                scales,
                max_distort,
            },
            other => other,
        },
        "squash_crop" => TrainTransform::SquashCrop {
            resize: spec.resize,
        },
        "squash" => TrainTransform::None,
        other => {
            return Err(WorkerError::Config(format!(
                "data.transform {other:?} is unknown; choose one of random_resized_crop, multi_scale_crop, squash_crop, \
                 squash"
            )));
        }
    };
    transform.validate(spec.size).map_err(WorkerError::Config)?;
    Ok(transform)
}

/// What is done to pixels after the crop. Where nothing is left of a picture its place is taken by the mean, which is 0
/// once normalised.
pub(crate) fn pixels(spec: &DataSpec) -> PixelAugment {
    let mut fill = [0; 3];
    for (byte, mean) in fill.iter_mut().zip(&spec.mean) {
        *byte = (mean * 255.0).round() as u8; // a mean is from 0 to 1
    }
    PixelAugment {
        operations: spec.rand_augment_operations,
        magnitude: spec.rand_augment_magnitude,
        cutout: spec.cutout,
        fill,
    }
}

/// What a bad picture does.
pub(crate) fn on_bad_image(spec: &DataSpec) -> OnBadImage {
    if spec.on_bad_image == "skip" {
        OnBadImage::Skip
    } else {
        OnBadImage::Error
    }
}
