//! Safetensors, in and out: a JSON header and raw bytes, nothing that runs.

use std::collections::BTreeMap;

use ::safetensors::tensor::{Dtype, SafeTensors, View};
use tch::{Device, Kind, Tensor};

use super::WeightError;

/// Tensors and metadata of safetensors bytes; `file` is named in errors. Every offset and shape is checked against the
/// bytes that are there before anything is allocated.
///
/// # Errors
/// [`WeightError::Safetensors`].
pub fn from_safetensors(
    bytes: &[u8],
    file: &str,
) -> Result<(BTreeMap<String, Tensor>, BTreeMap<String, String>), WeightError> {
    let invalid = |reason: String| WeightError::Safetensors { file: file.to_owned(), reason };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| invalid(error.to_string()))?;
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    let parsed = SafeTensors::deserialize(bytes).map_err(|error| invalid(error.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in parsed.iter() {
        let kind = kind(view.dtype()).ok_or_else(|| invalid(format!("tensor {name} is of type {:?}", view.dtype())))?;
        let shape = view
            .shape()
            .iter()
            .map(|&side| i64::try_from(side))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| invalid(format!("tensor {name} has a shape past all memory")))?;
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)
            .map_err(|source| WeightError::Torch { file: file.to_owned(), source })?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok((tensors, metadata))
}

/// Safetensors bytes of tensors, in an order that their names and types alone decide.
///
/// # Errors
/// [`WeightError::Write`] for a type that safetensors does not have.
pub fn to_safetensors(
    named: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, WeightError> {
    let write = |reason: String| WeightError::Write { reason };
    let raw = named
        .iter()
        .map(|(name, tensor)| Ok((name.as_str(), Raw::of(tensor).map_err(|reason| write(format!("{name}: {reason}")))?)))
        .collect::<Result<Vec<_>, WeightError>>()?;
    // A map without order would make equal states differ in bytes; the header is written from it.
    let metadata = (!metadata.is_empty()).then(|| metadata.clone().into_iter().collect());
    ::safetensors::serialize(raw, metadata).map_err(|error| write(error.to_string()))
}

/// A tensor's bytes.
struct Raw {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Raw {
    fn of(tensor: &Tensor) -> Result<Self, String> {
        let dtype = dtype(tensor.kind()).ok_or_else(|| format!("type {:?} cannot be written", tensor.kind()))?;
        let values = tensor
            .f_detach()
            .and_then(|t| t.f_to_device(Device::Cpu))
            .and_then(|t| t.f_contiguous())
            .map_err(|error| error.to_string())?;
        let mut bytes = vec![0; values.numel() * values.kind().elt_size_in_bytes()];
        values.f_copy_data_u8(&mut bytes, values.numel()).map_err(|error| error.to_string())?;
        let shape = values.size().into_iter().map(|side| usize::try_from(side).unwrap_or(0)).collect();
        Ok(Self { dtype, shape, bytes })
    }
}

impl View for Raw {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        std::borrow::Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
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
