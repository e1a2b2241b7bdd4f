//! A weight file's tensors into a model, and in words what matched.

use std::collections::BTreeMap;

use model::HgatFc;
use model::weights::{Scope, WeightFile, plan_match};

use crate::error::WorkerError;

/// Takes over what the scope wants; gives the file, what matched and what was done to its names, in one line.
///
/// # Errors
/// When the scope wants what the file does not have.
pub(crate) fn load(
    model: &mut HgatFc,
    file: &WeightFile,
    scope: Scope,
) -> Result<String, WorkerError> {
    let report = plan_match(&model.shapes()?, file, scope)?;
    let wanted: BTreeMap<_, _> = report
        .matched
        .iter()
        .filter_map(|name| Some((name.clone(), file.tensors.get(name)?.shallow_clone())))
        .collect();
    model.import(&wanted)?;
    let notes: String = file.notes.iter().map(|note| format!("; {note}")).collect();
    Ok(format!("{}: {report}{notes}", file.path))
}
