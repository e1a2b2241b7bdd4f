//! JPEG files: what is in them, whether they are whole, and their pixels.
//!
//! Pixels are given as stored: an EXIF orientation is ignored, as torchvision and COCO's boxes do, the same in training,
//! validation and prediction. A file that lacks data (cut, or without an end marker) is an error everywhere: nothing is
//! ever filled in and trained on. Bytes that are too many (between segments, behind the end) are a warning.

mod decoder;
mod entropy;
mod rare;
mod survey;

pub(crate) use survey::survey;

use std::fmt;

/// Most pixels of one picture: 100 million, 300 MB as RGB. A small file can claim any size.
pub const MAX_PIXELS: u64 = 100_000_000;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RgbImage {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// `[height, width, 3]`.
    pub pixels: Vec<u8>,
}

/// Damage that costs no pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Bytes between segments that belong to none.
    ExtraBytes(usize),
    /// Bytes behind the end marker.
    TrailingBytes(usize),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExtraBytes(count) => write!(f, "{count} extra bytes between segments"),
            Self::TrailingBytes(count) => write!(f, "{count} bytes behind the end marker"),
        }
    }
}

/// Why bytes are not a picture we can show. The caller adds the path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Something else, or nothing.
    #[error("not a JPEG: it holds {content}")]
    NotJpeg {
        /// What it is, as far as that can be told.
        content: String,
    },
    /// The data end before the picture does.
    #[error("ends early after {bytes} bytes ({missing}): fetch it again")]
    Truncated {
        /// Size of the file.
        bytes: usize,
        /// What is not there.
        missing: &'static str,
    },
    /// More pixels than allowed.
    #[error("{width} x {height} pixels are over the limit of {MAX_PIXELS}")]
    TooLarge {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// A legal JPEG of a rare kind that is not read.
    #[error("{0} JPEG is not supported: save it as an ordinary JPEG")]
    Unsupported(&'static str),
    /// The data contradict themselves.
    #[error("damaged: {0}")]
    Damaged(String),
}

/// Reads the frame header alone; the bytes may be the beginning of a file.
///
/// # Errors
/// [`DecodeError`]; [`DecodeError::Truncated`] also when the header lies beyond the given bytes.
pub fn probe(bytes: &[u8]) -> Result<Header, DecodeError> {
    survey::header(bytes)
}

/// Decodes to RGB; see [`decode_into`].
///
/// # Errors
/// [`DecodeError`].
pub fn decode(bytes: &[u8]) -> Result<(RgbImage, Option<Warning>), DecodeError> {
    let mut image = RgbImage::default();
    let warning = decode_into(bytes, &mut image)?;
    Ok((image, warning))
}

/// Decodes to RGB into memory that is used again: gray becomes three equal channels, ink is multiplied with black.
///
/// # Errors
/// [`DecodeError`]; the image's content is then unspecified.
pub fn decode_into(bytes: &[u8], image: &mut RgbImage) -> Result<Option<Warning>, DecodeError> {
    let survey = survey(bytes)?;
    decoder::decode(bytes, &survey, image)?;
    Ok(survey.warning(bytes.len()))
}
