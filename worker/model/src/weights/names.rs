//! From the names in the wild to the reference's.

use std::collections::BTreeMap;

use tch::Tensor;

/// Prefixes that wrappers put before every name (DataParallel, Lightning, detectors).
const WRAPPERS: [&str; 4] = ["module.", "model.", "backbone.", "encoder."];

/// Takes off wrappers' prefixes that all names share and translates torchvision's trunk names.
pub(super) fn normalise(tensors: BTreeMap<String, Tensor>) -> (BTreeMap<String, Tensor>, Vec<String>) {
    let (mut tensors, mut notes) = (tensors, Vec::new());
    while let Some(prefix) = WRAPPERS
        .iter()
        .find(|prefix| !tensors.is_empty() && trunk_or_head_under(&tensors, prefix))
    {
        notes.push(format!("prefix {prefix} taken off"));
        tensors = tensors
            .into_iter()
            .map(|(name, tensor)| (name.strip_prefix(prefix).map_or(name.clone(), str::to_owned), tensor))
            .collect();
    }
    let known = tensors.keys().any(|name| name.starts_with("features."));
    if !known && tensors.contains_key("conv1.weight") {
        notes.push("torchvision's names translated to features.*".to_owned());
        tensors = tensors.into_iter().map(|(name, tensor)| (translate(&name), tensor)).collect();
    }
    (tensors, notes)
}

/// Whether names that mean something begin behind this prefix and not without it.
fn trunk_or_head_under(tensors: &BTreeMap<String, Tensor>, prefix: &str) -> bool {
    let plain = tensors.keys().any(|name| name.starts_with("features.") || name == "conv1.weight");
    !plain && tensors.keys().any(|name| name.starts_with(prefix))
}

fn translate(name: &str) -> String {
    let places =
        [("conv1.", "0"), ("bn1.", "1"), ("layer1.", "4"), ("layer2.", "5"), ("layer3.", "6"), ("layer4.", "7")];
    places
        .iter()
        .find_map(|(theirs, ours)| Some(format!("features.{ours}.{}", name.strip_prefix(theirs)?)))
        .unwrap_or_else(|| name.to_owned())
}
