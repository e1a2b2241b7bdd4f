//! The container of `torch.save` since PyTorch 1.6: a zip archive with one pickle, `NAME/data.pkl`, that says which
//! tensors there are, and their bytes in `NAME/data/KEY`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};

use tch::Tensor;
use zip::ZipArchive;

use super::pickle::{self, Flaw, TensorPlan};
use super::state_dict;
use super::{Foreign, WeightError};

/// Bytes of a pickle that are read at most: names and shapes of a big model take a few hundred kilobytes.
const MOST_PICKLE_BYTES: u64 = 16 << 20;
/// Bytes that may come out of an archive of any size; a bigger one may give [`MOST_GROWTH`] times its own size.
const LEAST_BUDGET: u64 = 64 << 20;
/// Trained weights hardly compress, and few tensors share one storage.
const MOST_GROWTH: u64 = 4;

type Archive = ZipArchive<BufReader<File>>;

/// Tensors by name, and what there is to say about where they lay.
pub(super) fn read(
    file: File,
    size: u64,
    name: &str,
) -> Result<(BTreeMap<String, Tensor>, Vec<String>), WeightError> {
    let foreign = |what| WeightError::Foreign {
        file: name.to_owned(),
        what,
    };
    let damaged = |reason: String| WeightError::Pickle {
        file: name.to_owned(),
        reason,
    };
    let mut archive =
        ZipArchive::new(BufReader::new(file)).map_err(|_| foreign(Foreign::CutZip { size }))?;
    if archive
        .file_names()
        .any(|entry| entry.ends_with("/constants.pkl") || entry.contains("/code/"))
    {
        return Err(foreign(Foreign::TorchScript));
    }
    let pickles = archive
        .file_names()
        .filter(|entry| *entry == "data.pkl" || entry.ends_with("/data.pkl"));
    let Some(pickle_name) = pickles.min_by_key(|entry| entry.len()).map(str::to_owned) else {
        return Err(foreign(Foreign::OtherZip));
    };
    let root = pickle_name
        .strip_suffix("data.pkl")
        .unwrap_or_default()
        .to_owned();
    let mut budget = Budget {
        left: size
            .saturating_mul(MOST_GROWTH)
            .saturating_add(LEAST_BUDGET),
    };
    let program =
        entry(&mut archive, &pickle_name, MOST_PICKLE_BYTES, &mut budget).map_err(damaged)?;
    let values = pickle::read(&program).map_err(|flaw| match flaw {
        Flaw::Global(global) => WeightError::Global {
            file: name.to_owned(),
            global,
        },
        Flaw::Damaged(reason) => damaged(reason),
    })?;
    if entry(&mut archive, &format!("{root}byteorder"), 16, &mut budget)
        .is_ok_and(|order| order == b"big")
    {
        return Err(damaged(
            "its numbers are big-endian; load and save it on a little-endian machine".to_owned(),
        ));
    }
    let found = state_dict::find(&values).map_err(damaged)?;

    // By storage, so that one storage's bytes are held at a time.
    let mut plans: Vec<_> = found.plans.into_iter().collect();
    plans.sort_by(|(_, a), (_, b)| a.storage.key.cmp(&b.storage.key));
    let mut tensors = BTreeMap::new();
    let mut held: Option<(String, Vec<u8>)> = None;
    for (tensor_name, plan) in plans {
        let about = |reason: String| damaged(format!("tensor {tensor_name}: {reason}"));
        let key = &plan.storage.key;
        let data = match held.take().filter(|(of, _)| of == key) {
            Some((_, data)) => data,
            None => {
                let data = entry(
                    &mut archive,
                    &format!("{root}data/{key}"),
                    u64::MAX,
                    &mut budget,
                )
                .map_err(about)?;
                storage_is_whole(&plan, &data).map_err(about)?;
                data
            }
        };
        let elements = extent(&plan, data.len()).map_err(about)?;
        budget
            .take((elements as u64).saturating_mul(plan.storage.kind.elt_size_in_bytes() as u64))
            .map_err(about)?;
        let tensor = build(&plan, &data).map_err(|source| WeightError::Torch {
            file: name.to_owned(),
            source,
        })?;
        held = Some((key.clone(), data));
        tensors.insert(tensor_name, tensor);
    }
    Ok((tensors, found.notes))
}

/// The first global in a file of bare pickles that is not on the list; a legacy file has five of them in a row.
pub(super) fn wanted_global(file: File, name: &str) -> Result<Option<String>, WeightError> {
    let mut bytes = Vec::new();
    file.take(MOST_PICKLE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|source| WeightError::Io {
            file: name.to_owned(),
            source,
        })?;
    Ok(pickle::wanted_global(&bytes, 5))
}

/// What may still be allocated for this file.
struct Budget {
    left: u64,
}

impl Budget {
    fn take(&mut self, bytes: u64) -> Result<(), String> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            format!("it unfolds to more than {MOST_GROWTH} times the size of the file, as no trained weights do")
        })?;
        Ok(())
    }
}

fn entry(
    archive: &mut Archive,
    name: &str,
    most: u64,
    budget: &mut Budget,
) -> Result<Vec<u8>, String> {
    let entry = archive
        .by_name(name)
        .map_err(|error| format!("entry {name} cannot be read: {error}"))?;
    let size = entry.size();
    if size > most {
        return Err(format!(
            "entry {name} has {size} bytes, {most} are read at most"
        ));
    }
    budget.take(size)?;
    let mut bytes = Vec::new();
    // Read to the end of the entry, where its checksum is compared.
    let read = entry.take(size.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| format!("entry {name} cannot be read: {error}"))?;
    if bytes.len() as u64 == size {
        Ok(bytes)
    } else {
        Err(format!("entry {name} is not of its {size} bytes"))
    }
}

fn storage_is_whole(plan: &TensorPlan, data: &[u8]) -> Result<(), String> {
    let wanted = plan
        .storage
        .elements
        .checked_mul(plan.storage.kind.elt_size_in_bytes());
    if wanted.is_none_or(|wanted| wanted > data.len()) {
        let (key, elements) = (&plan.storage.key, plan.storage.elements);
        return Err(format!(
            "its storage {key} has {} bytes, too few for {elements} values",
            data.len()
        ));
    }
    Ok(())
}

/// Number of values of the tensor, once it is certain that all lie inside its storage.
fn extent(plan: &TensorPlan, bytes: usize) -> Result<usize, String> {
    let elements = bytes / plan.storage.kind.elt_size_in_bytes();
    if plan.shape.len() != plan.stride.len() {
        return Err("its shape and strides differ in length".to_owned());
    }
    // Sides of 0 count as 1 here: libtorch multiplies the others, too.
    let bound = plan
        .shape
        .iter()
        .try_fold(1i64, |product, &side| product.checked_mul(side.max(1)));
    let last = plan
        .shape
        .iter()
        .zip(&plan.stride)
        .try_fold(plan.offset, |at, (&side, &stride)| {
            at.checked_add((side - 1).max(0).checked_mul(stride)?)
        });
    let (Some(_), Some(last)) = (bound, last) else {
        return Err(format!("its shape {:?} is past all memory", plan.shape));
    };
    let count: i64 = plan.shape.iter().product();
    match (usize::try_from(count), usize::try_from(last)) {
        (Ok(0), _) => Ok(0),
        (Ok(count), Ok(last)) if last < elements => Ok(count),
        _ => Err(format!("it reaches past its storage of {elements} values")),
    }
}

/// The tensor of a plan whose [`extent`] was found good.
fn build(plan: &TensorPlan, data: &[u8]) -> Result<Tensor, tch::TchError> {
    let kind = plan.storage.kind;
    if plan.shape.contains(&0) {
        return Tensor::f_empty(&plan.shape, (kind, tch::Device::Cpu));
    }
    let elements = data.len() / kind.elt_size_in_bytes();
    let flat = Tensor::f_from_data_size(data, &[elements as i64], kind)?;
    // A copy: the values of one tensor must not change with those of another that shared its storage.
    let mut own = Tensor::f_empty(&plan.shape, (kind, tch::Device::Cpu))?;
    own.f_copy_(&flat.f_as_strided(&plan.shape, &plan.stride, plan.offset)?)?;
    Ok(own)
}
