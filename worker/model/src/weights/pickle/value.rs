//! What a pickle may describe.

use tch::Kind;

/// Where a value lies in [`Values`]: containers hold places, so values may be shared or hold themselves and are still
/// freed without recursion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Place(pub(super) u32);

/// The values of one pickle.
#[derive(Debug)]
pub(in super::super) struct Values {
    pub(super) all: Vec<Value>,
    pub(super) root: Place,
}

impl Values {
    pub(in super::super) fn root(&self) -> Place {
        self.root
    }

    pub(in super::super) fn get(&self, place: Place) -> &Value {
        &self.all[place.0 as usize]
    }
}

#[derive(Debug)]
pub(in super::super) enum Value {
    None,
    Int(i64),
    /// Booleans, floats, byte strings and harmless objects: read over, never needed.
    Opaque,
    Text(Box<str>),
    Tuple(Vec<Place>),
    List(Vec<Place>),
    Dict(Vec<(Place, Place)>),
    Global(Global),
    Storage(Box<Storage>),
    Tensor(Box<TensorPlan>),
}

impl Value {
    /// For people.
    pub(in super::super) fn what(&self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Int(_) => "a number",
            Self::Opaque => "a plain value",
            Self::Text(_) => "a text",
            Self::Tuple(_) | Self::List(_) => "a list without names",
            Self::Dict(_) => "a dictionary",
            Self::Global(_) => "a type",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "one tensor without a name",
        }
    }
}

/// Where a tensor's bytes lie.
#[derive(Debug, Clone)]
pub(in super::super) struct Storage {
    pub(in super::super) kind: Kind,
    pub(in super::super) key: String,
    pub(in super::super) elements: usize,
}

/// A tensor, as the pickle describes it; shape, strides and offset are not negative.
#[derive(Debug, Clone)]
pub(in super::super) struct TensorPlan {
    pub(in super::super) storage: Storage,
    pub(in super::super) offset: i64,
    pub(in super::super) shape: Vec<i64>,
    pub(in super::super) stride: Vec<i64>,
}

/// The only globals that may be named. None of them is ever called: each stands for a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Global {
    RebuildTensor,
    RebuildParameter,
    OrderedDict,
    StorageOf(Kind),
    /// Harmless and without a meaning here: dtypes, sizes, devices.
    Ignored,
}

impl Global {
    pub(super) fn named(module: &str, name: &str) -> Option<Self> {
        let kind = match (module, name) {
            ("torch._utils", "_rebuild_tensor_v2") => return Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => return Some(Self::RebuildParameter),
            ("collections", "OrderedDict") => return Some(Self::OrderedDict),
            ("torch", "Size" | "device") => return Some(Self::Ignored),
            ("torch", "float16" | "bfloat16" | "float32" | "float64") => {
                return Some(Self::Ignored);
            }
            ("torch", "uint8" | "int8" | "int16" | "int32" | "int64" | "bool") => {
                return Some(Self::Ignored);
            }
            ("torch", "DoubleStorage") => Kind::Double,
            ("torch", "FloatStorage") => Kind::Float,
            ("torch", "HalfStorage") => Kind::Half,
            ("torch", "BFloat16Storage") => Kind::BFloat16,
            ("torch", "LongStorage") => Kind::Int64,
            ("torch", "IntStorage") => Kind::Int,
            ("torch", "ShortStorage") => Kind::Int16,
            ("torch", "CharStorage") => Kind::Int8,
            ("torch", "ByteStorage") => Kind::Uint8,
            ("torch", "BoolStorage") => Kind::Bool,
            _ => return None,
        };
        Some(Self::StorageOf(kind))
    }
}
