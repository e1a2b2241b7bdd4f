//! What the binary can be told to do.

pub(crate) mod attention;
pub(crate) mod cache;
pub(crate) mod join;
pub(crate) mod pixels;
pub(crate) mod predict;
pub(crate) mod scenes;
