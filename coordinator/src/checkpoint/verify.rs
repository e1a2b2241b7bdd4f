//! Whether a file is what its SHA-256 says and holds only finite numbers, in one pass.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use sha2::{Digest, Sha256};

use super::error::CheckpointError;
use super::manifest::FileEntry;

/// Bytes looked at at a time: a multiple of every element size.
const BLOCK: usize = 1 << 20;

/// A header larger than this is not one of ours: the largest model has a few thousand tensors.
const MAX_HEADER_BYTES: u64 = 64 << 20;

/// Reads a file once: its length and SHA-256, and for safetensors that every float is finite.
///
/// # Errors
/// [`CheckpointError::Malformed`], [`CheckpointError::NotFinite`], or that it cannot be read.
pub(super) fn inspect(path: &Path, name: &str) -> Result<FileEntry, CheckpointError> {
    let file = File::open(path).map_err(|error| CheckpointError::io("open", path, 0, error))?;
    let mut reader = Hashing {
        inner: BufReader::with_capacity(BLOCK, file),
        sha: Sha256::new(),
        bytes: 0,
    };
    let read = |error| CheckpointError::io("read", path, 0, error);
    if name.ends_with(".safetensors") {
        check_tensors(&mut reader, path)?;
    }
    std::io::copy(&mut reader, &mut std::io::sink()).map_err(read)?;
    Ok(FileEntry {
        name: name.to_owned(),
        bytes: reader.bytes,
        sha256: hex(&reader.sha.finalize()),
    })
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Hashing {
    inner: BufReader<File>,
    sha: Sha256,
    bytes: u64,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.sha.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

fn check_tensors(reader: &mut Hashing, path: &Path) -> Result<(), CheckpointError> {
    let malformed = |problem: String| CheckpointError::Malformed {
        path: path.to_owned(),
        problem,
    };
    let cut = |error: std::io::Error| {
        malformed(format!("ends too early for a safetensors file: {error}"))
    };
    let mut length = [0; 8];
    reader.read_exact(&mut length).map_err(cut)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        return Err(malformed(format!(
            "its header claims {length} bytes: this is not a safetensors file"
        )));
    }
    let mut header = Vec::new();
    reader
        .by_ref()
        .take(length)
        .read_to_end(&mut header)
        .map_err(cut)?;
    if header.len() as u64 != length {
        return Err(malformed("ends within its header".into()));
    }
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| {
        malformed(format!(
            "its header is not that of a safetensors file: {error}"
        ))
    })?;
    let mut block = vec![0; BLOCK];
    // In the order of their bytes, which touch: reading the header has checked that.
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else {
            continue;
        };
        let mut left = info.data_offsets.1 - info.data_offsets.0;
        let mut first = 0;
        while left > 0 {
            let part = &mut block[..left.min(BLOCK)];
            reader
                .read_exact(part)
                .map_err(|_| malformed(format!("ends within tensor {name}")))?;
            if let Some((at, value)) = first_not_finite(info.dtype, part) {
                let (path, element) = (path.to_owned(), first + at);
                return Err(CheckpointError::NotFinite {
                    path,
                    tensor: name,
                    element,
                    value,
                });
            }
            first += (part.len() / element_bytes(info.dtype)) as u64;
            left -= part.len();
        }
    }
    let mut rest = [0];
    match reader.read(&mut rest).map_err(cut)? {
        0 => Ok(()),
        _ => Err(malformed("goes on after its last tensor".into())),
    }
}

fn element_bytes(dtype: Dtype) -> usize {
    (dtype.bitsize() / 8).max(1)
}

/// Position and value of the first element that is infinite or not a number; integers always pass.
fn first_not_finite(dtype: Dtype, bytes: &[u8]) -> Option<(u64, f64)> {
    fn scan<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Option<(u64, f64)> {
        let (elements, _) = bytes.as_chunks::<N>();
        (0..)
            .zip(elements)
            .map(|(at, element)| (at, value(*element)))
            .find(|(_, value)| !value.is_finite())
    }
    match dtype {
        Dtype::F64 => scan(bytes, f64::from_le_bytes),
        Dtype::F32 => scan(bytes, |bytes| f64::from(f32::from_le_bytes(bytes))),
        Dtype::BF16 => scan(bytes, |bytes: [u8; 2]| {
            f64::from(f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16))
        }),
        // A half is infinite or not a number when all five bits of its exponent are set.
        Dtype::F16 => scan(bytes, |bytes: [u8; 2]| match u16::from_le_bytes(bytes) {
            bits if bits & 0x7FFF == 0x7C00 => f64::INFINITY,
            bits if bits & 0x7C00 == 0x7C00 => f64::NAN,
            _ => 0.0,
        }),
        _ => None,
    }
}
