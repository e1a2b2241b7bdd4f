//! Safetensors, in and out: a JSON header and raw bytes, nothing that runs.

use std::collections::BTreeMap;

use ::safetensors::tensor::{Dtype, SafeTensors, TensorInfo};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::WeightError;

/// Bytes of a header that are read at most; a big model's takes a few hundred kilobytes.
const MOST_HEADER_BYTES: u64 = 4 << 20;

/// The header's own claim to its length, once that fits the file's size.
pub(super) fn header_length(start: &[u8], size: u64, file: &str) -> Result<u64, WeightError> {
    let invalid = |reason: String| {
        Err(WeightError::Safetensors {
            file: file.to_owned(),
            reason,
        })
    };
    let Some(length) = start.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else {
        return invalid(format!("it has {size} bytes, too short for a header"));
    };
    if length > size.saturating_sub(8) {
        return invalid(format!(
            "its header claims {length} bytes, longer than the file of {size} bytes"
        ));
    }
    if length > MOST_HEADER_BYTES {
        return invalid(format!(
            "its header of {length} bytes is longer than the {MOST_HEADER_BYTES} that are read"
        ));
    }
    Ok(length)
}

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__", default)]
    _metadata: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// Holds a header against the bytes of data behind it, naming the tensors that are wrong.
pub(super) fn check(header: &[u8], data: u64, file: &str) -> Result<(), WeightError> {
    let invalid = |reason: String| {
        Err(WeightError::Safetensors {
            file: file.to_owned(),
            reason,
        })
    };
    let parsed: Header = match serde_json::from_slice(header) {
        Ok(parsed) => parsed,
        Err(error) => return invalid(format!("its header is not the JSON of one: {error}")),
    };
    let mut entries: Vec<(&str, &Entry)> = parsed
        .tensors
        .iter()
        .map(|(name, entry)| (name.as_str(), entry))
        .collect();
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut end_before = ("", 0);
    for (name, entry) in entries {
        let (begin, end) = entry.data_offsets;
        let shown: String = name
            .chars()
            .take(120)
            .flat_map(char::escape_debug)
            .collect();
        if name.len() > 512 || name.chars().any(char::is_control) {
            return invalid(format!(
                "tensor {shown} has a very long name or control characters in it"
            ));
        }
        let Some(size) = bytes_per_value(&entry.dtype) else {
            let dtype: String = entry
                .dtype
                .chars()
                .take(16)
                .flat_map(char::escape_debug)
                .collect();
            return invalid(format!(
                "tensor {shown} is of type {dtype}, which is not read"
            ));
        };
        let (shape, dims) = (
            entry.shape.iter().take(8).collect::<Vec<_>>(),
            entry.shape.len(),
        );
        if dims > 16 {
            return invalid(format!("tensor {shown} has {dims} dimensions"));
        }
        // Sides of 0 count as 1 here: libtorch multiplies the others, too.
        let bound = entry.shape.iter().try_fold(1i64, |n, &side| {
            n.checked_mul(i64::try_from(side).ok()?.max(1))
        });
        let (Some(_), Some(length)) = (bound, end.checked_sub(begin)) else {
            return invalid(format!(
                "tensor {shown} has shape {shape:?} at bytes {begin} to {end}, which cannot be"
            ));
        };
        let wanted = entry.shape.iter().product::<u64>().checked_mul(size);
        if wanted != Some(length) {
            return invalid(format!(
                "tensor {shown} has shape {shape:?} of {}, but {length} bytes",
                entry.dtype
            ));
        }
        if begin < end_before.1 {
            return invalid(format!(
                "tensors {} and {shown} claim the same bytes",
                end_before.0
            ));
        }
        if begin > end_before.1 {
            return invalid(format!(
                "no tensor claims the bytes {} to {begin} before {shown}",
                end_before.1
            ));
        }
        if end > data {
            return invalid(format!(
                "tensor {shown} is not whole: the file is {} bytes short of it",
                end - data
            ));
        }
        end_before = (name, end);
    }
    if end_before.1 < data {
        return invalid(format!(
            "{} bytes behind its last tensor belong to none",
            data - end_before.1
        ));
    }
    Ok(())
}

fn bytes_per_value(dtype: &str) -> Option<u64> {
    let dtype: Dtype = serde_json::from_value(serde_json::Value::from(dtype)).ok()?;
    Some(kind(dtype)?.elt_size_in_bytes() as u64)
}

/// Tensors and metadata, each by name.
pub type Loaded = (BTreeMap<String, Tensor>, BTreeMap<String, String>);

/// Tensors and metadata of safetensors bytes; `file` is named in errors. Every offset and shape is checked against the
/// bytes that are there before anything is allocated.
///
/// # Errors
/// [`WeightError::Safetensors`].
pub fn from_safetensors(bytes: &[u8], file: &str) -> Result<Loaded, WeightError> {
    let invalid = |reason: String| WeightError::Safetensors {
        file: file.to_owned(),
        reason,
    };
    let header = header_length(bytes, bytes.len() as u64, file)?;
    // In bounds: the length was just held against that of the bytes.
    let (header, data) = bytes[8..].split_at(header as usize);
    check(header, data.len() as u64, file)?;
    let (_, header) =
        SafeTensors::read_metadata(bytes).map_err(|error| invalid(error.to_string()))?;
    let metadata = header
        .metadata()
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect();
    let parsed = SafeTensors::deserialize(bytes).map_err(|error| invalid(error.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in parsed.iter() {
        let kind = kind(view.dtype())
            .ok_or_else(|| invalid(format!("tensor {name} is of type {:?}", view.dtype())))?;
        let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind).map_err(|source| {
            WeightError::Torch {
                file: file.to_owned(),
                source,
            }
        })?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok((tensors, metadata))
}

/// Safetensors bytes of tensors. Equal tensors and metadata give equal bytes, whatever the order they come in: wide
/// types lie before narrow ones, for alignment, and by name otherwise.
///
/// # Errors
/// [`WeightError::Write`] for a type that is not written and for a name given twice; [`WeightError::Torch`].
pub fn to_safetensors(
    named: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, WeightError> {
    let write = |reason: String| WeightError::Write { reason };
    let torch = |error: tch::TchError| write(error.to_string());
    let mut sorted = named
        .iter()
        .map(|(name, tensor)| {
            let kind = tensor.f_kind().map_err(torch)?;
            let dtype =
                dtype(kind).ok_or_else(|| write(format!("tensor {name} is of type {kind:?}")))?;
            Ok((kind.elt_size_in_bytes(), dtype, name.as_str(), tensor))
        })
        .collect::<Result<Vec<_>, WeightError>>()?;
    sorted.sort_by(|a, b| b.0.cmp(&a.0).then(a.2.cmp(b.2)));

    let (mut header, mut end) = (BTreeMap::new(), 0);
    for (size, dtype, name, tensor) in &sorted {
        let begin = end;
        end += tensor.numel() * size;
        let shape = tensor
            .size()
            .into_iter()
            .map(|side| side as usize)
            .collect();
        let info = TensorInfo {
            dtype: *dtype,
            shape,
            data_offsets: (begin, end),
        };
        if *name == "__metadata__" || header.insert((*name).to_owned(), info).is_some() {
            return Err(write(format!(
                "the name {name} cannot be used twice; __metadata__ is taken"
            )));
        }
    }
    let mut json: serde_json::Map<String, serde_json::Value> = header
        .into_iter()
        .map(|(name, info)| Ok((name, serde_json::to_value(info)?)))
        .collect::<Result<_, serde_json::Error>>()
        .map_err(|error| write(error.to_string()))?;
    if !metadata.is_empty() {
        // From an ordered map: the library's own writer has one without order here.
        json.insert("__metadata__".to_owned(), serde_json::json!(metadata));
    }
    let mut header = serde_json::to_vec(&json).map_err(|error| write(error.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut bytes = vec![0; 8 + header.len() + end];
    bytes[..8].copy_from_slice(&(header.len() as u64).to_le_bytes());
    bytes[8..8 + header.len()].copy_from_slice(&header);
    let mut rest = &mut bytes[8 + header.len()..];
    for (size, _, _, tensor) in sorted {
        let values = tensor
            .f_detach()
            .and_then(|t| t.f_to_device(Device::Cpu))
            .and_then(|t| t.f_contiguous());
        let values = values.map_err(torch)?;
        let (own, behind) = rest.split_at_mut(values.numel() * size);
        values.f_copy_data_u8(own, values.numel()).map_err(torch)?;
        rest = behind;
    }
    Ok(bytes)
}

fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

fn dtype(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Double => Dtype::F64,
        Kind::Float => Dtype::F32,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        Kind::Int => Dtype::I32,
        Kind::Int16 => Dtype::I16,
        Kind::Int8 => Dtype::I8,
        Kind::Uint8 => Dtype::U8,
        Kind::Bool => Dtype::BOOL,
        _ => return None,
    })
}
