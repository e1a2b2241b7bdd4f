//! The augmentation that the spec names.

use data::augment::TrainTransform;
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

/// What a bad picture does.
pub(crate) fn on_bad_image(spec: &DataSpec) -> OnBadImage {
    if spec.on_bad_image == "skip" {
        OnBadImage::Skip
    } else {
        OnBadImage::Error
    }
}
