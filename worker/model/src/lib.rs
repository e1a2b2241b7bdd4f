//! HGAT_FC over libtorch, and the weight files it starts from.
//!
//! One job: from images to logits, with the meaning of the PyTorch reference and the names of its parameters in files.
//! Must not know: where batches come from, processes, ranks, gradients' travels, optimizers or checkpoints' places.
//!
//! Batch normalisation is split in two, because a step has many micro-batches on many ranks and may be aborted: the
//! forward pass leaves each batch's statistics in one flat tensor, [`HgatFc::batch_statistics`]; whoever runs the step
//! averages them and calls [`HgatFc::update_running_statistics`] once.

mod build;
mod config;
mod error;
mod gat;
mod heads;
mod hgat_fc;
mod linear;
pub mod loss;
mod names;
mod norm;
mod operations;
mod resnet;
pub mod weights;

pub use build::{Parameter, Role};
pub use config::{Backbone, Graph, ModelConfig, Residual};
pub use error::{ModelError, Result};
pub use hgat_fc::{Attention, HgatFc};
pub use operations::{Convolution, Operations, StackedProduct, TrainingNorm};
