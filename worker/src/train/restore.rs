//! From a checkpoint's tensors back to a state.

use std::collections::BTreeMap;

use model::HgatFc;
use tch::{Kind, Tensor};

use super::average::Average;
use super::optimizer::Optimizer;
use crate::error::WorkerError;

/// Fills model and optimizer from a checkpoint's tensors.
///
/// # Errors
/// When a tensor is missing or has another shape.
pub(crate) fn restore(
    model: &mut HgatFc,
    optimizer: &Optimizer,
    weights: &BTreeMap<String, Tensor>,
    state: &BTreeMap<String, Tensor>,
    step: u64,
) -> Result<(), WorkerError> {
    complete(model, weights, "model.safetensors", step)?;
    model.import(weights)?;
    for (kind, tensors) in optimizer.state() {
        let prefix = format!("{kind}/");
        let named = state
            .iter()
            .filter_map(|(name, tensor)| {
                Some((
                    name.strip_prefix(&prefix)?.to_owned(),
                    tensor.shallow_clone(),
                ))
            })
            .collect();
        model.fill_like_parameters(&named, tensors)?;
    }
    Ok(())
}

/// Fills the average of the weights from a checkpoint's `ema.safetensors`; `model` is filled already and stays as it is.
///
/// # Errors
/// When a tensor is missing or has another shape.
pub(crate) fn restore_average(
    model: &mut HgatFc,
    average: &Average,
    weights: &BTreeMap<String, Tensor>,
    step: u64,
) -> Result<(), WorkerError> {
    let torch = |source| WorkerError::Torch { step, source };
    let tracked = model.batches_tracked();
    average.swap(model).map_err(torch)?;
    let imported =
        complete(model, weights, "ema.safetensors", step).and_then(|()| Ok(model.import(weights)?));
    average.swap(model).map_err(torch)?;
    model.set_batches_tracked(tracked);
    imported
}

/// That no tensor of the model is missing.
fn complete(
    model: &HgatFc,
    weights: &BTreeMap<String, Tensor>,
    file: &str,
    step: u64,
) -> Result<(), WorkerError> {
    let shapes = model.shapes()?;
    let Some(missing) = shapes.keys().find(|name| !weights.contains_key(*name)) else {
        return Ok(());
    };
    let reason = format!("{file} has no {missing}");
    Err(WorkerError::Checkpoint { step, reason })
}

/// The kinds that `train.precision` names: of parameters, and of convolutions and matrix products.
pub(crate) fn kinds(precision: &str) -> (Kind, Kind) {
    match precision {
        "float64" => (Kind::Double, Kind::Double),
        "bf16" => (Kind::Float, Kind::BFloat16),
        _ => (Kind::Float, Kind::Float),
    }
}
