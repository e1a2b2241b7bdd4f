//! Finding the weights in what a `torch.save` file holds: at the top, or in a dictionary inside a checkpoint.

use std::collections::BTreeMap;

use super::pickle::{Place, TensorPlan, Value, Values};

/// Keys under which checkpoints keep weights, the one to take first.
const KEYS: [&str; 8] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "weights",
];
/// How deep such keys are followed.
const DEEPEST: usize = 3;
/// Characters of a tensor's name at most.
const LONGEST_NAME: usize = 512;

#[derive(Debug)]
pub(super) struct Found {
    pub(super) plans: BTreeMap<String, TensorPlan>,
    pub(super) notes: Vec<String>,
}

/// The one dictionary of tensors that is meant; two are never mixed.
pub(super) fn find(values: &Values) -> Result<Found, String> {
    let (mut at, mut path, mut notes) = (values.root(), Vec::new(), Vec::new());
    loop {
        let Value::Dict(_) = values.get(at) else {
            return Err(format!(
                "it holds {} and no tensors by name",
                values.get(at).what()
            ));
        };
        let inside = dictionaries(values, at);
        let known = KEYS.into_iter().find(|key| inside.contains_key(key));
        let next = match known {
            Some(key) => key,
            None if holds_tensors(values, at) => break,
            None => match inside.keys().copied().collect::<Vec<_>>().as_slice() {
                [] => return Err("it holds no tensors by name".to_owned()),
                [one] => one,
                several => {
                    let several = several.join(", ");
                    return Err(format!(
                        "it holds several dictionaries of tensors ({several}), and which is meant is not clear"
                    ));
                }
            },
        };
        if path.len() == DEEPEST {
            return Err("it holds dictionaries in dictionaries without end".to_owned());
        }
        let others: Vec<&str> = inside.keys().copied().filter(|&key| key != next).collect();
        if !others.is_empty() {
            notes.push(format!("tensors under {} left alone", others.join(", ")));
        }
        path.push(next);
        at = inside[next];
    }
    if !path.is_empty() {
        notes.insert(0, format!("found under {}", path.join(".")));
    }
    let plans = tensors(values, at, &mut notes)?;
    Ok(Found { plans, notes })
}

fn entries(values: &Values, at: Place) -> impl Iterator<Item = (&str, Place)> {
    let entries = if let Value::Dict(entries) = values.get(at) {
        entries.as_slice()
    } else {
        &[]
    };
    entries
        .iter()
        .filter_map(|&(key, value)| match values.get(key) {
            Value::Text(key) => Some((key.as_ref(), value)),
            _ => None,
        })
}

/// The dictionaries in this one that hold tensors, themselves or under a key of [`KEYS`].
fn dictionaries(values: &Values, at: Place) -> BTreeMap<&str, Place> {
    // Thousands of keys may share one big dictionary; each is looked through once.
    let mut known: BTreeMap<Place, bool> = BTreeMap::new();
    let mut leads = |inner: Place| {
        *known.entry(inner).or_insert_with(|| {
            holds_tensors(values, inner)
                || entries(values, inner)
                    .any(|(key, deeper)| KEYS.contains(&key) && holds_tensors(values, deeper))
        })
    };
    entries(values, at)
        .filter(|&(key, inner)| fit_to_print(key) && leads(inner))
        .collect()
}

fn holds_tensors(values: &Values, at: Place) -> bool {
    entries(values, at).any(|(_, value)| matches!(values.get(value), Value::Tensor(_)))
}

fn fit_to_print(name: &str) -> bool {
    name.len() <= LONGEST_NAME && !name.chars().any(char::is_control)
}

fn tensors(
    values: &Values,
    at: Place,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<String, TensorPlan>, String> {
    let (mut plans, mut passed_over) = (BTreeMap::new(), Vec::new());
    for (name, value) in entries(values, at) {
        if !fit_to_print(name) {
            return Err("a tensor's name is very long or has control characters".to_owned());
        }
        match values.get(value) {
            Value::Tensor(plan) => drop(plans.insert(name.to_owned(), plan.as_ref().clone())),
            _ => passed_over.push(name),
        }
    }
    if !passed_over.is_empty() {
        let first: Vec<&str> = passed_over.iter().take(3).copied().collect();
        notes.push(format!(
            "{} entries that are no tensors passed over ({})",
            passed_over.len(),
            first.join(", ")
        ));
    }
    Ok(plans)
}
