//! Drawn scenes: a synthetic data set in COCO's format, bit-identical for a seed.
