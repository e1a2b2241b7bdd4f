//! The container of `torch.save` since PyTorch 1.6: a zip archive with one pickle, `NAME/data.pkl`, that says which
//! tensors there are, and their bytes in `NAME/data/KEY`.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use tch::{Kind, Tensor};
use zip::ZipArchive;

use super::pickle::{self, Flaw, Storage, TensorPlan};
use super::{Foreign, WeightError};

/// Bytes of a pickle that are read at most: names and shapes of a big model take a few hundred kilobytes.
const MOST_PICKLE_BYTES: u64 = 64 << 20;

pub(super) fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

/// What bytes are that are no zip archive, where that can be told; `None` for what may be safetensors.
pub(super) fn foreign(bytes: &[u8]) -> Option<Foreign> {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).trim_start().to_ascii_lowercase();
    if bytes.is_empty() {
        Some(Foreign::Empty)
    } else if text.starts_with("version https://git-lfs") {
        Some(Foreign::LfsPointer)
    } else if text.starts_with("<!doctype") || text.starts_with("<html") || text.starts_with("<?xml") {
        Some(Foreign::WebPage)
    } else if bytes.get(257..262) == Some(b"ustar") {
        Some(Foreign::Tar)
    } else if bytes.starts_with(&[0x1f, 0x8b]) {
        Some(Foreign::Gzip)
    } else if bytes.starts_with(&[0x80]) && bytes.get(1).is_some_and(|version| (1..=5).contains(version)) {
        Some(Foreign::LegacyPickle)
    } else if bytes.len() >= 9 && bytes[8] == b'{' {
        None
    } else {
        Some(Foreign::Unknown)
    }
}

/// Tensors by name.
pub(super) fn read(bytes: &[u8], file: &str) -> Result<BTreeMap<String, Tensor>, WeightError> {
    let foreign = |what| WeightError::Foreign { file: file.to_owned(), what };
    let damaged = |reason: String| WeightError::Pickle { file: file.to_owned(), reason };
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|_| foreign(Foreign::CutZip))?;
    let names: Vec<String> = archive.file_names().map(str::to_owned).collect();
    if names.iter().any(|name| name.ends_with("/constants.pkl") || name.contains("/code/")) {
        return Err(foreign(Foreign::TorchScript));
    }
    let Some(pickle_name) = names.iter().find(|name| *name == "data.pkl" || name.ends_with("/data.pkl")) else {
        return Err(foreign(Foreign::OtherZip));
    };
    let root = pickle_name.strip_suffix("data.pkl").unwrap_or_default().to_owned();
    let text = entry(&mut archive, pickle_name, MOST_PICKLE_BYTES).map_err(&damaged)?;
    let plans = pickle::tensors(&text).map_err(|flaw| match flaw {
        Flaw::Global(global) => WeightError::Global { file: file.to_owned(), global },
        Flaw::Damaged(reason) => damaged(reason),
    })?;
    let big_endian = entry(&mut archive, &format!("{root}byteorder"), 16).is_ok_and(|order| order == b"big");
    if big_endian {
        return Err(damaged("its numbers are big-endian".to_owned()));
    }
    let mut storages: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut tensors = BTreeMap::new();
    for (name, plan) in plans {
        let key = plan.storage.key.clone();
        if !storages.contains_key(&key) {
            // No storage is longer than the archive itself unless it is a bomb; stored entries are not compressed.
            let data = entry(&mut archive, &format!("{root}data/{key}"), bytes.len() as u64).map_err(&damaged)?;
            storages.insert(key.clone(), data);
        }
        let tensor = build(&plan, &storages[&key])
            .map_err(|reason| damaged(format!("tensor {name}: {reason}")))?
            .map_err(|source| WeightError::Torch { file: file.to_owned(), source })?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

fn entry(archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str, most: u64) -> Result<Vec<u8>, String> {
    let entry = archive.by_name(name).map_err(|error| format!("{name} cannot be read: {error}"))?;
    let mut bytes = Vec::new();
    entry.take(most + 1).read_to_end(&mut bytes).map_err(|error| format!("{name} cannot be read: {error}"))?;
    if bytes.len() as u64 > most { Err(format!("{name} is longer than {most} bytes")) } else { Ok(bytes) }
}

type Built = Result<Tensor, tch::TchError>;

/// The tensor of a plan: bounds are checked against the storage's real bytes before libtorch sees them.
fn build(plan: &TensorPlan, bytes: &[u8]) -> Result<Built, String> {
    let Storage { kind, .. } = plan.storage;
    let size = kind.elt_size_in_bytes();
    let elements = bytes.len() / size;
    if plan.shape.len() != plan.stride.len() {
        return Err("shape and strides differ in length".to_owned());
    }
    let count = plan.shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
    let last = plan
        .shape
        .iter()
        .zip(&plan.stride)
        .try_fold(plan.offset, |at, (&side, &stride)| at.checked_add(side.saturating_sub(1).checked_mul(stride)?));
    let (Some(count), Some(last)) = (count, last) else {
        return Err("its shape is past all memory".to_owned());
    };
    if count > 0 && last >= elements {
        return Err(format!("it reaches past its storage of {elements} values"));
    }
    // A stride of 0 could make a small storage into a huge tensor.
    if count > elements {
        return Err(format!("it has {count} values, its storage {elements}"));
    }
    let to_i64 = |values: &[usize]| values.iter().map(|&value| value as i64).collect::<Vec<_>>();
    Ok((|| {
        let flat = Tensor::f_from_data_size(&bytes[..elements * size], &[elements as i64], kind)?;
        if kind == Kind::Bool || count == 0 {
            return flat.f_slice(0, 0, count as i64, 1)?.f_reshape(to_i64(&plan.shape));
        }
        flat.f_as_strided(to_i64(&plan.shape), to_i64(&plan.stride), plan.offset as i64)?.f_contiguous()
    })())
}
