//! Weight files: safetensors and zip-format `torch.save` files, read without ever running anything in them.
//!
//! Names leave here as the reference has them: `features.*`, `heads.*`. Wrappings (`state_dict`, `module.`, `model.`,
//! `backbone.`) are taken off and torchvision's and timm's trunk names translated; both are noted.

mod archive;
mod error;
mod fit;
mod names;
mod pickle;
mod safetensors;

use std::collections::BTreeMap;
use std::path::Path;

use tch::Tensor;

pub use error::{Foreign, WeightError};
pub use fit::{MatchReport, Scope, plan_match};
pub use safetensors::{from_safetensors, to_safetensors};

/// What a weight file holds.
#[derive(Debug)]
pub struct WeightFile {
    /// Where it was read from.
    pub path: String,
    /// Tensors by the reference's names, as far as they are known.
    pub tensors: BTreeMap<String, Tensor>,
    /// What was taken off or translated, for people.
    pub notes: Vec<String>,
    /// A safetensors file's own metadata.
    pub metadata: BTreeMap<String, String>,
}

/// Reads a weight file.
///
/// # Errors
/// [`WeightError`], saying what the file is where it is none that is read.
pub fn read(path: &Path) -> Result<WeightFile, WeightError> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| WeightError::Io { file: file.clone(), source })?;
    let named_safetensors = path.extension().is_some_and(|suffix| suffix == "safetensors");
    let (tensors, metadata) = if archive::is_zip(&bytes) && !named_safetensors {
        (archive::read(&bytes, &file)?, BTreeMap::new())
    } else if let Some(what) = archive::foreign(&bytes).filter(|_| !named_safetensors) {
        return Err(WeightError::Foreign { file, what });
    } else {
        from_safetensors(&bytes, &file)?
    };
    let (tensors, notes) = names::normalise(tensors);
    Ok(WeightFile { path: file, tensors, notes, metadata })
}
