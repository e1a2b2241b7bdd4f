//! Why a weight file cannot be used. All of these are bad data (exit code 65).

use std::fmt;

/// What a weight file turned out to be, where it is not one that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Foreign {
    /// A folder, a device or a pipe.
    NotAFile,
    /// Nothing in it.
    Empty,
    /// `torch.save` of PyTorch before 1.6, bare pickles and bytes.
    LegacyPickle,
    /// The tar file of PyTorch before 0.1.10.
    Tar,
    /// The zip archive of `torch.save`, where another format was promised.
    TorchZip,
    /// A TorchScript archive.
    TorchScript,
    /// A pointer of Git LFS.
    LfsPointer,
    /// A web page, an error page most likely.
    WebPage {
        /// Its first characters.
        start: String,
    },
    /// A zip archive without its end: a download that broke off.
    CutZip {
        /// What is there of it, in bytes.
        size: u64,
    },
    /// A zip archive without a `data.pkl`.
    OtherZip,
    /// gzip-compressed.
    Gzip,
    /// Anything else.
    Unknown {
        /// Its first characters.
        start: String,
        /// Its size in bytes.
        size: u64,
    },
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAFile => f.write_str("is no regular file; give the weight file itself"),
            Self::Empty => f.write_str("is empty (0 bytes); download it again"),
            Self::LegacyPickle => f.write_str(
                "is in the format that torch.save had before PyTorch 1.6; convert it once: python3 -c \"import torch; \
                 torch.save(torch.load('OLD.pth', weights_only=True, map_location='cpu'), 'NEW.pth')\"",
            ),
            Self::Tar => f.write_str(
                "is in PyTorch's first format, a tar file; convert it once, if you trust it, for loading runs its \
                 code: python3 -c \"import torch; torch.save(torch.load('OLD.pth', weights_only=False, \
                 map_location='cpu'), 'NEW.pth')\"",
            ),
            Self::TorchZip => f.write_str("is a zip archive of torch.save; name it .pth"),
            Self::TorchScript => f.write_str(
                "is a TorchScript archive, a program and not only weights; convert it: python3 -c \"import torch; \
                 torch.save(torch.jit.load('OLD.pt', map_location='cpu').state_dict(), 'NEW.pth')\"",
            ),
            Self::LfsPointer => f.write_str("is a Git LFS pointer and not the file itself; fetch that with git lfs pull"),
            Self::WebPage { start } => {
                write!(f, "is a web page (it starts with {start}) and no weight file; download the file itself")
            }
            Self::CutZip { size } => {
                write!(f, "is an incomplete zip archive of {size} bytes, a download cut short; download it again")
            }
            Self::OtherZip => {
                f.write_str("is a zip archive without data.pkl, so not of torch.save; save state_dict() with torch.save")
            }
            Self::Gzip => f.write_str("is compressed with gzip; unpack it first"),
            Self::Unknown { start, size } => write!(
                f,
                "is neither safetensors nor a zip archive of torch.save ({size} bytes, starts with {start}); save \
                 state_dict() as one of them"
            ),
        }
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
    /// It is named after a format that it is not in.
    #[error("weight file {file} is not a safetensors file as its name says: it {what}")]
    WrongName {
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
    /// A `torch.save` file wants something that only running code could give.
    #[error(
        "weight file {file} wants the global {global}; only tensors are read, and nothing of it was run: where that is \
         a model's class, save model.state_dict() instead, and leave all but tensors out of a checkpoint"
    )]
    Global {
        /// The file.
        file: String,
        /// The global it names, `module.name`.
        global: String,
    },
    /// A `torch.save` file is damaged, or holds no tensors by name.
    #[error("weight file {file}: {reason}; save state_dict() with torch.save again")]
    Pickle {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Its names cannot be brought to the reference's.
    #[error("weight file {file}: {reason}")]
    Names {
        /// The file.
        file: String,
        /// Which ones.
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
