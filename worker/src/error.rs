//! What ends a worker, and what its process and the coordinator are told.

use proto::v1::fault::Class;

use crate::session::{Break, Ended, LinkError};

/// Exit codes that Kubernetes' podFailurePolicy reads.
pub(crate) mod exit {
    /// Usage or config.
    pub(crate) const USAGE: u8 = 64;
    /// Bad data.
    pub(crate) const DATA: u8 = 65;
    /// A peer or the coordinator was lost: try again.
    pub(crate) const RETRY: u8 = 75;
    /// A bug.
    pub(crate) const BUG: u8 = 1;
}

/// Why a worker ends before its plan does.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    /// The coordinator ended the session, or is gone.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// The coordinator ended before it had recorded this process, which the next one would not know of.
    #[error(
        "the coordinator that started this process ended before it had recorded it: nothing was begun; \
         `coordinator start --resume` starts another one"
    )]
    NotNoted,
    /// The generation is over; this worker goes on in the next one.
    #[error("generation over: {0}")]
    Regroup(String),
    /// The coordinator cannot be talked to.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A process group could not be formed, or a collective failed.
    #[error("after {}: {source}", steps(*.step))]
    Collective {
        /// Steps committed before it.
        step: u64,
        source: nccl_rs::Error,
    },
    /// A picture cannot be read.
    #[error(transparent)]
    Data(#[from] data::loader::LoadError),
    /// The data set's index cannot be used.
    #[error(transparent)]
    Index(#[from] data::coco::IndexError),
    /// The loader's threads could not be started.
    #[error("cannot start {threads} loader threads: {source}; lower data.loader_threads")]
    Threads {
        threads: usize,
        source: std::io::Error,
    },
    /// The model refused its input or its config.
    #[error(transparent)]
    Model(#[from] model::ModelError),
    /// A weight file cannot be used.
    #[error(transparent)]
    Weights(#[from] model::weights::WeightError),
    /// libtorch failed.
    #[error("after {}: libtorch failed: {source}", steps(*.step))]
    Torch { step: u64, source: tch::TchError },
    /// Loss or gradient is not a finite number; the step was not applied.
    #[error(
        "after {}: loss {} and gradient norm {} are not both finite, and the step was not applied: look at its pictures and \
         go on with --resume, or with --resume --set train.on_not_finite=skip, which passes over such steps; or start a new \
         run with {}",
        steps(*.step), real(*.loss), real(*.norm), calmer(Some(*.clip_norm))
    )]
    NotFinite {
        step: u64,
        loss: f64,
        norm: f64,
        /// `train.clip_norm` of the run.
        clip_norm: f64,
    },
    /// A score is not a number, so no figure can be made of it.
    #[error(
        "evaluation after {}: a score of image {sample} is not a number: the model has diverged; start again with \
         {}",
        steps(*.step), calmer(None)
    )]
    Diverged { step: u64, sample: u32 },
    /// A checkpoint does not fit this run.
    #[error("checkpoint of step {step}: {reason}")]
    Checkpoint { step: u64, reason: String },
    /// The state that came from the peers cannot be taken.
    #[error("the state after {} did not come whole from the peers: {reason}", steps(*.step))]
    Transfer { step: u64, reason: String },
    /// The config asks for something that this worker cannot do.
    #[error("{0}")]
    Config(String),
    /// A file or folder named on the command line cannot be used.
    #[error("{what} {path}: {reason}")]
    Input {
        what: &'static str,
        path: String,
        reason: String,
    },
}

impl WorkerError {
    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Ended(ended) => ended.exit_code,
            Self::Link(LinkError::Address { .. }) | Self::Config(_) => exit::USAGE,
            Self::NotNoted | Self::Link(_) | Self::Collective { .. } | Self::Regroup(_) => {
                exit::RETRY
            }
            Self::Data(_)
            | Self::Weights(_)
            | Self::NotFinite { .. }
            | Self::Diverged { .. }
            | Self::Input { .. }
            | Self::Checkpoint { .. } => exit::DATA,
            Self::Index(_)
            | Self::Threads { .. }
            | Self::Model(_)
            | Self::Torch { .. }
            | Self::Transfer { .. } => exit::BUG,
        }
    }

    /// What the coordinator is told; nothing where it is the coordinator that spoke, or that cannot hear.
    pub(crate) fn class(&self) -> Option<Class> {
        match self {
            Self::NotNoted | Self::Ended(_) | Self::Link(_) | Self::Regroup(_) => None,
            _ if self.is_of_memory() => Some(Class::Memory),
            Self::Collective { .. } => Some(Class::Collective),
            Self::Data(_)
            | Self::Weights(_)
            | Self::Input { .. }
            | Self::Diverged { .. }
            | Self::Checkpoint { .. } => Some(Class::Data),
            Self::NotFinite { .. } => Some(Class::Numeric),
            Self::Config(_) => Some(Class::Config),
            Self::Index(_)
            | Self::Threads { .. }
            | Self::Model(_)
            | Self::Torch { .. }
            | Self::Transfer { .. } => Some(Class::Internal),
        }
    }
}

impl WorkerError {
    /// Whether a failed collective says that something is wrong with the peers or the way to them, and not with this
    /// worker: it can go on in another generation.
    pub(crate) fn is_of_peers(&self) -> bool {
        use nccl_rs::Error as E;
        matches!(
            self,
            Self::Collective {
                source: E::Collective { .. }
                    | E::Aborted { .. }
                    | E::Rendezvous { .. }
                    | E::Creation { .. },
                ..
            }
        )
    }

    /// Whether the device, or the machine, has no memory left for what was asked.
    pub(crate) fn is_of_memory(&self) -> bool {
        match self {
            Self::Collective { source, .. } => {
                matches!(source, nccl_rs::Error::OutOfMemory { .. })
                    || says_out_of_memory(&source.to_string())
            }
            // Only the text tells: tch keeps nothing else of libtorch's exceptions.
            Self::Torch { source, .. } => says_out_of_memory(&source.to_string()),
            Self::Model(error) => says_out_of_memory(&error.to_string()),
            _ => false,
        }
    }

    /// Whether libtorch failed, for other reasons than memory. Where the device's context is broken, as a CUDA error leaves it,
    /// no call of this process will succeed any more.
    pub(crate) fn is_of_device(&self) -> bool {
        let of_torch = matches!(
            self,
            Self::Torch { .. } | Self::Model(model::ModelError::Torch(_))
        );
        of_torch && !self.is_of_memory()
    }

    /// Whether the end of this worker's generation alone may have caused it.
    pub(crate) fn is_of_generation(&self) -> bool {
        matches!(self, Self::Link(_)) || self.is_of_peers()
    }
}

/// "1 step", "3 steps": places are told by how many are done, as progress counts them.
pub(crate) fn steps(number: u64) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} step{ending}", grouped(number))
}

/// What keeps numbers within bounds, beside what `train.clip_norm` is, where that is known; 0 is none.
fn calmer(clip_norm: Option<f64>) -> String {
    let clip_norm = match clip_norm {
        Some(0.0) => "train.clip_norm set (it is 0: gradients are not clipped)".to_owned(),
        Some(clip_norm) => format!("a lower train.clip_norm (it is {clip_norm})"),
        None => "a lower train.clip_norm (0 is none)".to_owned(),
    };
    format!("lower train.learning_rate_*, {clip_norm}, or, of bf16, train.precision = \"float32\"")
}

/// `82783` as `82,783`, as the coordinator writes numbers, beside whose sentences these stand.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number that may be far too large to be written out.
fn real(number: f64) -> String {
    if number.is_finite() && number.abs() >= 1e6 {
        format!("{number:.3e}")
    } else {
        number.to_string()
    }
}

/// What libtorch's allocators say on CPU and on CUDA, and all that oneDNN says when it gets no memory for its code.
fn says_out_of_memory(text: &str) -> bool {
    const WORDS: [&str; 4] = [
        "DefaultCPUAllocator",
        "out of memory",
        "bad_alloc",
        "could not create a primitive",
    ];
    WORDS.iter().any(|words| text.contains(words))
}

impl From<Break> for WorkerError {
    fn from(why: Break) -> Self {
        match why {
            Break::Ended(ended) => Self::Ended(ended),
            Break::Regroup(reason) => Self::Regroup(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_clips_its_gradients_is_not_told_to_begin_to() {
        let told = |clip_norm: f64| {
            let error = WorkerError::NotFinite {
                step: 1200,
                loss: f64::INFINITY,
                norm: 1.0,
                clip_norm,
            };
            error.to_string()
        };
        let clips = told(10.0);
        assert!(clips.starts_with("after 1,200 steps: loss inf"), "{clips}");
        assert!(
            clips.ends_with(
                "start a new run with lower train.learning_rate_*, a lower train.clip_norm (it is 10), or, of bf16, \
                 train.precision = \"float32\""
            ),
            "{clips}"
        );
        let does_not = told(0.0);
        assert!(
            does_not.contains("train.clip_norm set (it is 0: gradients are not clipped)"),
            "{does_not}"
        );
    }
}
