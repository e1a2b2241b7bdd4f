//! Weight files: safetensors and zip-format `torch.save` files, read without ever running anything in them.
//!
//! Names leave here as the reference has them: `features.*`, `heads.*`. Wrappings (`state_dict`, `module.`, `model.`,
//! `backbone.`) are taken off and torchvision's and timm's trunk names translated; all of it is noted.
//!
//! A file may be hostile: nothing is allocated by a number it claims before the number is held against its real size.

mod archive;
mod error;
mod fit;
mod kind;
mod names;
mod pickle;
mod safetensors;
mod state_dict;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use tch::Tensor;

pub use error::{Foreign, WeightError};
pub use fit::{MatchReport, Scope, plan_match};
pub use kind::FileKind;
pub use safetensors::{Loaded, from_safetensors, to_safetensors};

use kind::Sniffed;

/// What a weight file holds.
#[derive(Debug)]
pub struct WeightFile {
    /// Where it was read from.
    pub path: String,
    /// Its format.
    pub kind: FileKind,
    /// Tensors on the CPU, contiguous, by the reference's names as far as they are known and their own otherwise.
    pub tensors: BTreeMap<String, Tensor>,
    /// What was taken off, translated or passed over, for people.
    pub notes: Vec<String>,
    /// A safetensors file's own metadata.
    pub metadata: BTreeMap<String, String>,
}

/// Reads a weight file; its content decides how, its name only words the errors.
///
/// # Errors
/// [`WeightError`], saying what the file is where it is none that is read.
pub fn read(path: &Path) -> Result<WeightFile, WeightError> {
    let name = path.display().to_string();
    let io = |source| WeightError::Io {
        file: name.clone(),
        source,
    };
    let about = std::fs::metadata(path).map_err(io)?;
    if !about.is_file() {
        return Err(WeightError::Foreign {
            file: name,
            what: Foreign::NotAFile,
        });
    }
    let (size, mut file) = (about.len(), File::open(path).map_err(io)?);
    let mut head = Vec::new();
    (&mut file)
        .take(kind::HEAD_BYTES)
        .read_to_end(&mut head)
        .map_err(io)?;
    file.rewind().map_err(io)?;

    let named_safetensors = path
        .extension()
        .is_some_and(|suffix| suffix.eq_ignore_ascii_case("safetensors"));
    let (kind, tensors, mut notes, metadata) = match kind::sniff(&head, size) {
        Sniffed::Safetensors => read_safetensors(file, size, &name)?,
        // Too short or of no known kind: the reader of the format it is named after says best what is wrong.
        Sniffed::Foreign(Foreign::Empty | Foreign::Unknown { .. }) if named_safetensors => {
            read_safetensors(file, size, &name)?
        }
        Sniffed::Zip if named_safetensors => {
            return Err(WeightError::WrongName {
                file: name,
                what: Foreign::TorchZip,
            });
        }
        Sniffed::Zip => {
            let (tensors, notes) = archive::read(file, size, &name)?;
            (FileKind::TorchZip, tensors, notes, BTreeMap::new())
        }
        Sniffed::Foreign(what) => {
            if what == Foreign::LegacyPickle
                && let Some(global) = archive::wanted_global(file, &name)?
            {
                return Err(WeightError::Global { file: name, global });
            }
            let wrong_name = named_safetensors;
            return Err(match wrong_name {
                true => WeightError::WrongName { file: name, what },
                false => WeightError::Foreign { file: name, what },
            });
        }
    };
    let tensors = names::normalise(tensors, &mut notes).map_err(|reason| WeightError::Names {
        file: name.clone(),
        reason,
    })?;
    Ok(WeightFile {
        path: name,
        kind,
        tensors,
        notes,
        metadata,
    })
}

type Content = (
    FileKind,
    BTreeMap<String, Tensor>,
    Vec<String>,
    BTreeMap<String, String>,
);

/// The header is read and checked against the file's size before the rest is read.
fn read_safetensors(mut file: File, size: u64, name: &str) -> Result<Content, WeightError> {
    let io = |source| WeightError::Io {
        file: name.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    (&mut file).take(8).read_to_end(&mut bytes).map_err(io)?;
    let header = safetensors::header_length(&bytes, size, name)?;
    (&mut file)
        .take(header)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    safetensors::check(&bytes[8..], size - 8 - header, name)?;
    file.read_to_end(&mut bytes).map_err(io)?;
    let (tensors, metadata) = from_safetensors(&bytes, name)?;
    Ok((FileKind::Safetensors, tensors, Vec::new(), metadata))
}
