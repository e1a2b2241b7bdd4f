//! The checks a tensor passes before C++ sees it, one refusal each.

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::ffi;

/// What a tensor is to be used for.
pub(crate) struct Use<'a> {
    /// The operation, for messages.
    pub(crate) operation: &'static str,
    /// Which tensor, for messages.
    pub(crate) what: &'a str,
    /// The group's device.
    pub(crate) device: Device,
}

/// The number types that both backends reduce, broadcast and gather.
const KINDS: [Kind; 8] = [
    Kind::Float,
    Kind::Double,
    Kind::Half,
    Kind::BFloat16,
    Kind::Int8,
    Kind::Uint8,
    Kind::Int,
    Kind::Int64,
];

/// Refuses what a collective cannot take: it would be read or written as something it is not.
pub(crate) fn check(tensor: &Tensor, usage: &Use<'_>) -> Result<()> {
    let what = || usage.what.to_owned();
    if !tensor.defined() {
        return Err(Error::UndefinedTensor { what: what() });
    }
    if !ffi::is_strided(tensor) {
        return Err(Error::NotDense { what: what() });
    }
    let found = tensor.device();
    if found != usage.device {
        return Err(Error::WrongDevice {
            what: what(),
            expected: usage.device,
            found,
        });
    }
    let kind = tensor.kind();
    if !KINDS.contains(&kind) {
        return Err(Error::UnsupportedKind {
            what: what(),
            kind,
            operation: usage.operation,
        });
    }
    if !tensor.is_contiguous() {
        return Err(Error::NotContiguous { what: what() });
    }
    Ok(())
}
