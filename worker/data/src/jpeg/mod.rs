//! JPEG files: what is in them, whether they are whole, and their pixels.

/// What a JPEG's frame header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// 1 gray, 3 colour, 4 ink.
    pub components: u8,
    /// Progressive rather than sequential.
    pub progressive: bool,
}

/// Pixels in rows from the top, three bytes each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// `[height, width, 3]`.
    pub pixels: Vec<u8>,
}

/// Why bytes are not a picture we can show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Placeholder.
    #[error("{0}")]
    Damaged(String),
}
