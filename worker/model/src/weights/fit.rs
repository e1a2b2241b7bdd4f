//! What of a weight file fits the model, told to people.

use std::collections::BTreeMap;
use std::fmt;

use tch::Kind;

use super::{WeightError, WeightFile};

/// How much of the model a file must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The trunk (`features.*`); the head keeps its first values.
    Trunk,
    /// Everything.
    Whole,
}

/// What fits, and what is left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MatchReport {
    /// Names taken from the file.
    pub matched: Vec<String>,
    /// Names in the file that are not the model's, or outside the scope, such as `fc.weight`.
    pub left_out: Vec<String>,
    /// Names of attention layers that published checkpoints carry in every variant, and that this one does not use.
    pub unused: Vec<String>,
    /// `num_batches_tracked` that the file does not have; taken as 0.
    pub defaulted: Vec<String>,
}

/// Compares the model's names and shapes with a file's.
///
/// # Errors
/// [`WeightError::Match`] with the count and first ten names that are missing or of another shape.
pub fn plan_match(
    expected: &BTreeMap<String, Vec<i64>>,
    file: &WeightFile,
    scope: Scope,
) -> Result<MatchReport, WeightError> {
    let inside = |name: &str| scope == Scope::Whole || name.starts_with("features.");
    let mut report = MatchReport::default();
    let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
    for (name, shape) in expected.iter().filter(|(name, _)| inside(name)) {
        let counter = name.ends_with(".num_batches_tracked");
        match file.tensors.get(name) {
            Some(tensor) if tensor.size() != *shape => {
                misshapen.push(format!(
                    "{name} ({:?}, the model has {shape:?})",
                    tensor.size()
                ));
            }
            Some(tensor) if is_integer(tensor.kind()) != counter => {
                misshapen.push(format!("{name} (of type {:?})", tensor.kind()));
            }
            Some(_) => report.matched.push(name.clone()),
            // Files from before PyTorch 0.4.1 do not have it.
            None if counter => report.defaulted.push(name.clone()),
            None => missing.push(name.clone()),
        }
    }
    if !missing.is_empty() || !misshapen.is_empty() {
        let wanted =
            report.matched.len() + report.defaulted.len() + missing.len() + misshapen.len();
        let of_what = if scope == Scope::Trunk {
            "trunk tensors"
        } else {
            "tensors"
        };
        let mut reasons = Vec::new();
        for (what, names) in [
            ("missing", &missing),
            ("of another shape or type", &misshapen),
        ] {
            if !names.is_empty() {
                reasons.push(format!(
                    "{} of {wanted} {of_what} are {what}: {}",
                    names.len(),
                    first_ten(names)
                ));
            }
        }
        let held: Vec<String> = file.tensors.keys().cloned().collect();
        reasons.push(format!(
            "the file holds {} tensors: {}",
            held.len(),
            first_ten(&held)
        ));
        reasons.extend((!file.notes.is_empty()).then(|| file.notes.join(", ")));
        let reason = reasons.join("; ") + "; check model.backbone and the file";
        return Err(WeightError::Match {
            file: file.path.clone(),
            reason,
        });
    }
    for name in file
        .tensors
        .keys()
        .filter(|name| !inside(name) || !expected.contains_key(*name))
    {
        let published = ["heads.gat1.", "heads.gat2s.", "heads.fc_replace_GALayer"];
        if !expected.contains_key(name) && published.iter().any(|prefix| name.starts_with(prefix)) {
            report.unused.push(name.clone());
        } else {
            report.left_out.push(name.clone());
        }
    }
    Ok(report)
}

fn is_integer(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Uint8 | Kind::Int8 | Kind::Int16 | Kind::Int | Kind::Int64
    )
}

fn first_ten(names: &[String]) -> String {
    let more = if names.len() > 10 { ", …" } else { "" };
    format!(
        "{}{more}",
        names
            .iter()
            .take(10)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ")
    )
}

impl fmt::Display for MatchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors matched", self.matched.len())?;
        for (what, names) in [
            ("left out", &self.left_out),
            ("of attention layers not in use", &self.unused),
            ("num_batches_tracked taken as 0", &self.defaulted),
        ] {
            if !names.is_empty() {
                write!(f, ", {} {what} ({})", names.len(), first_ten(names))?;
            }
        }
        Ok(())
    }
}
