//! Pictures and labels of a COCO-format data set: reads the annotation files into a compact index, checks and
//! decodes the JPEG files, draws the augmentation and hands out batches of pixels; also draws synthetic scenes.
//!
//! Must not know: tensors or libtorch, the network, ranks, plans or who asked for a sample.

pub mod scenes;
