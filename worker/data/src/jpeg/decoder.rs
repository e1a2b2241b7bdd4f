//! The decoder behind this crate's `jpeg` module: zune-jpeg, pure Rust with SIMD, so that a build needs neither cmake
//! nor an assembler. Nobody else names it, so that another one can take its place.

use super::survey::Survey;
use super::{DecodeError, RgbImage};
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Decodes a surveyed file into `image`.
pub(super) fn decode(
    bytes: &[u8],
    survey: &Survey,
    image: &mut RgbImage,
) -> Result<(), DecodeError> {
    let (width, height) = (survey.header.width, survey.header.height);
    image.width = width;
    image.height = height;
    image.pixels.resize(width as usize * height as usize * 3, 0);

    let (data, removed) = without_extra_bytes(bytes, survey);
    let end = survey.end - removed;
    let truncated = || DecodeError::Truncated {
        bytes: bytes.len(),
        missing: "a part of the picture data",
    };
    if survey.header.progressive || survey.scans != 1 {
        return run(&data[..end + 2], image).map_err(|error| error.into_decode_error(truncated));
    }
    // With the end marker in sight the decoder invents what is missing before it (a file cut and closed again);
    // without, it says that the data ran out. A whole picture may still look for a few bits behind its last ones.
    match run(&data[..end], image) {
        Err(Failure::Exhausted) => {}
        done => return done.map_err(|error| error.into_decode_error(truncated)),
    }
    let mut padded = data[..end].to_vec();
    padded.extend_from_slice(&[0; 4]);
    run(&padded, image).map_err(|error| error.into_decode_error(truncated))
}

/// The file without the bytes that belong to no segment (the decoder refuses them), and how many those are.
fn without_extra_bytes<'a>(bytes: &'a [u8], survey: &Survey) -> (Cow<'a, [u8]>, usize) {
    if survey.extra.is_empty() {
        return (Cow::Borrowed(bytes), 0);
    }
    let mut kept = Vec::with_capacity(bytes.len());
    let mut at = 0;
    for extra in &survey.extra {
        kept.extend_from_slice(&bytes[at..extra.start]);
        at = extra.end;
    }
    kept.extend_from_slice(&bytes[at..]);
    let removed = bytes.len() - kept.len();
    (Cow::Owned(kept), removed)
}

enum Failure {
    Exhausted,
    Other(String),
}

impl Failure {
    fn into_decode_error(self, truncated: impl FnOnce() -> DecodeError) -> DecodeError {
        match self {
            Self::Exhausted => truncated(),
            Self::Other(reason) => DecodeError::Damaged(reason),
        }
    }
}

fn run(data: &[u8], image: &mut RgbImage) -> Result<(), Failure> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(1 << 16)
        .set_max_height(1 << 16)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    // Damaged data must never take a process down, and overflow checks are on: a panic is one more kind of damage.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(data), options);
        decoder.decode_headers()?;
        if decoder.output_buffer_size() != Some(image.pixels.len()) {
            return Err(DecodeErrors::FormatStatic(
                "the size is not the one in the frame header",
            ));
        }
        decoder.decode_into(&mut image.pixels)
    }));
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(
            DecodeErrors::ExhaustedData | DecodeErrors::FormatStatic("Premature end of buffer"),
        )) => Err(Failure::Exhausted),
        Ok(Err(error)) => Err(Failure::Other(
            error.to_string().trim().trim_matches('"').to_owned(),
        )),
        Err(_) => Err(Failure::Other("the decoder gave up".to_owned())),
    }
}
