//! Why a weight file cannot be used. All of these are bad data (exit code 65).

use std::fmt;

/// What a weight file turned out to be, where it is not one that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// Nothing in it.
    Empty,
    /// `torch.save` of PyTorch before 1.6, one bare pickle.
    LegacyPickle,
    /// The tar file of PyTorch before 0.1.10.
    Tar,
    /// A TorchScript archive.
    TorchScript,
    /// A pointer of Git LFS.
    LfsPointer,
    /// A web page, an error page most likely.
    WebPage,
    /// A zip archive without its end: a download that broke off.
    CutZip,
    /// A zip archive without a `data.pkl`.
    OtherZip,
    /// gzip-compressed.
    Gzip,
    /// Anything else.
    Unknown,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "is empty; download it again",
            Self::LegacyPickle => {
                "is a legacy torch.save file (before PyTorch 1.6), which cannot be read without running its code; \
                 convert it once where you trust it: python -c \"import torch; \
                 torch.save(torch.load('FILE', weights_only=True), 'NEW.pth')\""
            }
            Self::Tar => {
                "is a legacy tar file of torch.save (before PyTorch 0.1.10); convert it once where you trust it: \
                 python -c \"import torch; torch.save(torch.load('FILE', weights_only=False), 'NEW.pth')\""
            }
            Self::TorchScript => {
                "is a TorchScript archive, a program and not only weights; convert it: python -c \"import torch; \
                 torch.save(torch.jit.load('FILE').state_dict(), 'NEW.pth')\""
            }
            Self::LfsPointer => "is a Git LFS pointer and not the file itself; run git lfs pull",
            Self::WebPage => "is a web page (HTML) and not weights; download the file itself",
            Self::CutZip => "is a zip archive (torch.save) that was cut short; download it again",
            Self::OtherZip => "is a zip archive without data.pkl, so no torch.save file; save state_dict() with torch.save",
            Self::Gzip => "is compressed with gzip; unpack it first",
            Self::Unknown => "is neither safetensors nor a zip-format torch.save file; save state_dict() as one of them",
        })
    }
}

/// Why a weight file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// It cannot be opened or read.
    #[error("weight file {file}: {source}; check the path and its permissions")]
    Io {
        /// The file.
        file: String,
        /// Why not.
        source: std::io::Error,
    },
    /// It is something else.
    #[error("weight file {file} {what}")]
    Foreign {
        /// The file.
        file: String,
        /// What it is, and what to do.
        what: Foreign,
    },
    /// A safetensors file contradicts itself.
    #[error("weight file {file}: not valid safetensors: {reason}; download or export it again")]
    Safetensors {
        /// The file.
        file: String,
        /// What is wrong, naming the tensor where there is one.
        reason: String,
    },
    /// A torch.save file wants something that only running code could give.
    #[error(
        "weight file {file} wants the global {global}, which is not a tensor's; nothing of it was run: if this is a \
         whole module, save state_dict() instead"
    )]
    Global {
        /// The file.
        file: String,
        /// The global it names, `module.name`.
        global: String,
    },
    /// A torch.save file is damaged, or holds no tensors by name.
    #[error("weight file {file}: {reason}; save state_dict() with torch.save again")]
    Pickle {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Names or shapes do not fit the model.
    #[error("weight file {file} does not fit the model: {reason}")]
    Match {
        /// The file.
        file: String,
        /// How many names, and the first ten.
        reason: String,
    },
    /// Tensors could not be written as safetensors.
    #[error("cannot write tensors as safetensors: {reason}")]
    Write {
        /// Why not.
        reason: String,
    },
    /// libtorch failed.
    #[error("weight file {file}: libtorch failed: {source}")]
    Torch {
        /// The file.
        file: String,
        /// Why.
        source: tch::TchError,
    },
}
