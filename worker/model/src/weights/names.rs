//! From the names in the wild to the reference's.

use std::collections::BTreeMap;

use tch::Tensor;

/// What wrappers put before every name: DataParallel, Lightning, detectors, `torch.compile`.
const WRAPPERS: [&str; 7] = [
    "module.",
    "model.",
    "backbone.",
    "encoder.",
    "net.",
    "network.",
    "_orig_mod.",
];

/// How torchvision and timm name a ResNet's trunk, and where the reference has it.
const TRUNK: [(&str, &str); 6] = [
    ("conv1.", "features.0."),
    ("bn1.", "features.1."),
    ("layer1.", "features.4."),
    ("layer2.", "features.5."),
    ("layer3.", "features.6."),
    ("layer4.", "features.7."),
];

/// Takes off the wrappers' prefix under which most of the model is, and translates torchvision's trunk names; `notes`
/// says so. Names without that prefix stay as they are.
///
/// # Errors
/// The two names that would become one.
pub(super) fn normalise(
    tensors: BTreeMap<String, Tensor>,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<String, Tensor>, String> {
    let prefix = prefix(tensors.keys().map(String::as_str));
    if !prefix.is_empty() {
        notes.push(format!("prefix {prefix} taken off"));
    }
    let bare = |name: &str| name.strip_prefix(prefix.as_str()).map(str::to_owned);
    let ours = tensors
        .keys()
        .filter_map(|name| bare(name))
        .any(|name| name.starts_with("features."));
    let (mut normal, mut translated) = (BTreeMap::new(), 0);
    let mut came_from: BTreeMap<String, String> = BTreeMap::new();
    for (name, tensor) in tensors {
        let mut new = name.clone();
        if let Some(bare) = bare(&name) {
            let theirs = TRUNK
                .iter()
                .find_map(|(theirs, place)| Some((place, bare.strip_prefix(theirs)?)));
            new = match theirs.filter(|_| !ours) {
                Some((place, rest)) => {
                    translated += 1;
                    format!("{place}{rest}")
                }
                None => bare,
            };
        }
        if let Some(other) = came_from.insert(new.clone(), name.clone()) {
            return Err(format!(
                "its names {other} and {name} both stand for {new}; leave one of them out"
            ));
        }
        normal.insert(new, tensor);
    }
    if translated > 0 {
        notes.push(format!(
            "{translated} names of torchvision's trunk translated to features.*"
        ));
    }
    Ok(normal)
}

/// The chain of wrappers before the most trunk and head names; none where these stand bare.
fn prefix<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names {
        let mut rest = name;
        while let Some(inner) = WRAPPERS
            .iter()
            .find_map(|wrapper| rest.strip_prefix(wrapper))
        {
            rest = inner;
        }
        let known = ["features.", "heads."]
            .into_iter()
            .chain(TRUNK.map(|(theirs, _)| theirs));
        if known.into_iter().any(|start| rest.starts_with(start)) {
            *counts.entry(&name[..name.len() - rest.len()]).or_default() += 1;
        }
    }
    // Of equals the first in order, so that equal files give equal models.
    let best = counts
        .iter()
        .rev()
        .max_by_key(|(prefix, count)| (**count, prefix.is_empty()));
    best.map_or(String::new(), |(prefix, _)| (*prefix).to_owned())
}
