//! The decoders behind this crate's `jpeg` module, pure Rust with SIMD, so that a build needs neither cmake nor an
//! assembler: [`baseline`] for nearly all pictures, zune-jpeg for the others, and [`rare`] has what that one gets wrong.
//! Nobody else names them, so that another one can take a place.

use super::survey::Survey;
use super::{DecodeError, Region, RgbImage, baseline, entropy, rare};
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Bytes of nothing but ones behind the data of a scan. zune-jpeg goes on with zeros where data are missing before the
/// end marker (a file cut and closed again), and makes blocks of them; bits that are all 1 are no code of any table.
const ONES: usize = 8;

/// Memory of one thread, used again for every picture.
#[derive(Default)]
pub(super) struct Scratch {
    baseline: baseline::Scratch,
    /// A whole picture, where only wholes can be decoded.
    whole: RgbImage,
}

/// Decodes the region of a surveyed file into `image`.
pub(super) fn decode(
    bytes: &[u8],
    survey: &Survey,
    region: Region,
    scratch: &mut Scratch,
    image: &mut RgbImage,
) -> Result<(), DecodeError> {
    image.resize(region.width, region.height);
    let pixels = &mut image.pixels;
    // Damaged data must never take a process down: should a decoder panic, it is one more kind of damage.
    let usual = catch_unwind(AssertUnwindSafe(|| {
        baseline::decode(bytes, survey, region, &mut scratch.baseline, pixels)
    }));
    let outcome = match usual {
        Ok(Some(outcome)) => outcome.map_err(str::to_owned),
        Ok(None) if region == Region::whole(&survey.header) => general(bytes, survey, image)?,
        Ok(None) => general(bytes, survey, &mut scratch.whole)?.map(|()| {
            scratch.whole.copy_region(region, image);
        }),
        Err(_) => Err("the decoder gave up".to_owned()),
    };
    outcome.map_err(|reason| {
        // Better words, if that is what it is.
        let damaged = || DecodeError::Damaged(reason);
        entropy::check(bytes).err().unwrap_or_else(damaged)
    })
}

/// Decodes the whole of a file of any kind; what the decoder says is the inner result.
fn general(
    bytes: &[u8],
    survey: &Survey,
    image: &mut RgbImage,
) -> Result<Result<(), String>, DecodeError> {
    image.resize(survey.header.width, survey.header.height);
    let several_scans = survey.header.progressive || survey.scans != 1;
    if several_scans {
        entropy::check(bytes)?;
    }
    let (data, removed) = without_extra_bytes(bytes, survey);
    let mut data = data.into_owned();
    data.truncate(survey.end - removed);
    if !several_scans {
        data.extend_from_slice(&[0xff, 0].repeat(ONES));
    }
    data.extend_from_slice(b"\xff\xd9");
    Ok(if rare::is_rare(survey) {
        rare::run(&data, &mut image.pixels)
    } else {
        run(&data, image)
    })
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

fn run(data: &[u8], image: &mut RgbImage) -> Result<(), String> {
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
        Ok(Err(error)) => Err(error.to_string().trim().trim_matches('"').to_owned()),
        Err(_) => Err("the decoder gave up".to_owned()),
    }
}
