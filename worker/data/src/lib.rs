//! Pictures and labels of a COCO-format data set: reads the annotation files into a compact index, checks and
//! decodes the JPEG files, draws the augmentation and hands out batches of pixels, on how many threads is said here too;
//! also draws synthetic scenes, and fits a linear classifier to compare models with.
//!
//! ```text
//! instances_*.json -> coco::Dataset -> Split::encode ~ bytes ~ Split::decode -> loader::Loader -> Batch [B, S, S, 3]
//!                                                                                 |-- jpeg: bytes to RGB, of the crop alone
//!                                                                                 |   cache: or the same RGB from a file
//!                                                                                 |-- augment: (seed, epoch, id) to a crop
//!                                                                                 `-- transform: crop to S x S
//! ```
//!
//! Must not know: tensors or libtorch, the network, ranks, plans or who asked for a sample.

pub mod augment;
pub mod cache;
pub mod coco;
mod content;
pub mod files;
pub mod jpeg;
pub mod loader;
pub mod preview;
mod rgb;
pub mod scenes;
pub mod threads;
pub mod thumbnails;
pub mod transform;
