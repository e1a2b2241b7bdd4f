//! JPEG files: what is in them, whether they are whole, and their pixels.
//!
//! Pixels are given as stored: an EXIF orientation is ignored, as torchvision and COCO's boxes do, the same in training,
//! validation and prediction. A file that lacks data (cut, or without an end marker) is an error everywhere: nothing is
//! ever filled in and trained on. Bytes that are too many (between segments, behind the end) are a warning.

mod baseline;
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

impl RgbImage {
    /// Gives it a size; the pixels are unspecified.
    pub(crate) fn resize(&mut self, width: u32, height: u32) {
        self.width = width;
        self.height = height;
        self.pixels.resize(width as usize * height as usize * 3, 0);
    }

    /// Copies a region that lies within it.
    fn copy_region(&self, region: Region, to: &mut RgbImage) {
        to.resize(region.width, region.height);
        let bytes = |pixels: u32| pixels as usize * 3;
        let rows = self.pixels.chunks_exact(bytes(self.width).max(1));
        let out = to.pixels.chunks_exact_mut(bytes(region.width).max(1));
        for (out, row) in out.zip(rows.skip(region.top as usize)) {
            let from = bytes(region.left);
            out.copy_from_slice(&row[from..from + out.len()]);
        }
    }
}

/// A rectangle of a picture, in pixels, at least one in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Left edge.
    pub left: u32,
    /// Upper edge.
    pub top: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

impl Region {
    /// All of a picture.
    #[must_use]
    pub fn whole(header: &Header) -> Self {
        Self {
            left: 0,
            top: 0,
            width: header.width,
            height: header.height,
        }
    }

    /// The part of it that the picture has; a pixel at least.
    fn within(self, header: &Header) -> Self {
        let left = self.left.min(header.width - 1);
        let top = self.top.min(header.height - 1);
        Self {
            left,
            top,
            width: self.width.clamp(1, header.width - left),
            height: self.height.clamp(1, header.height - top),
        }
    }
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

/// Decodes to RGB; see [`Decoder::decode`].
///
/// # Errors
/// [`DecodeError`].
pub fn decode(bytes: &[u8]) -> Result<(RgbImage, Option<Warning>), DecodeError> {
    let mut image = RgbImage::default();
    let warning = decode_into(bytes, &mut image)?;
    Ok((image, warning))
}

/// Decodes a whole picture to RGB into memory that is used again; see [`Decoder::decode`].
///
/// # Errors
/// [`DecodeError`]; the image's content is then unspecified.
pub fn decode_into(bytes: &[u8], image: &mut RgbImage) -> Result<Option<Warning>, DecodeError> {
    let decoded = Decoder::new().decode(bytes, Region::whole, image)?;
    Ok(decoded.warning)
}

/// What was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The whole picture's header.
    pub header: Header,
    /// The part that the image shows.
    pub region: Region,
    /// Harmless damage.
    pub warning: Option<Warning>,
}

/// Decodes one picture after another with the same memory.
#[derive(Default)]
pub struct Decoder {
    scratch: decoder::Scratch,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder for one thread.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes the part of a picture that `choose` picks by its header to RGB: gray becomes three equal channels, ink is
    /// multiplied with black. The pixels are those that decoding the whole gives there, and a damaged file is refused
    /// wherever the damage is: only the work of computing other pixels is left out.
    ///
    /// # Errors
    /// [`DecodeError`]; the image's content is then unspecified.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        choose: impl FnOnce(&Header) -> Region,
        image: &mut RgbImage,
    ) -> Result<Decoded, DecodeError> {
        let survey = survey(bytes)?;
        let header = survey.header;
        let region = choose(&header).within(&header);
        decoder::decode(bytes, &survey, region, &mut self.scratch, image)?;
        Ok(Decoded {
            header,
            region,
            warning: survey.warning(bytes.len()),
        })
    }
}
