//! From a checkpoint's tensors back to a state.

use std::collections::BTreeMap;

use model::HgatFc;
use tch::{Kind, Tensor};

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
    if let Some(missing) = model
        .shapes()?
        .keys()
        .find(|name| !weights.contains_key(*name))
    {
        let reason = format!("model.safetensors has no {missing}");
        return Err(WorkerError::Checkpoint { step, reason });
    }
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

/// The kinds that `train.precision` names: of parameters, and of convolutions and matrix products.
pub(crate) fn kinds(precision: &str) -> (Kind, Kind) {
    match precision {
        "float64" => (Kind::Double, Kind::Double),
        "bf16" => (Kind::Float, Kind::BFloat16),
        _ => (Kind::Float, Kind::Float),
    }
}
