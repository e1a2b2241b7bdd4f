//! Legal kinds of JPEG that the fast decoder shows wrongly, without an error: jpeg-decoder reads them, slower and right.
//!
//! The tests compare both with what was stored, kind by kind; a kind goes back to the fast decoder when it passes there.

use super::survey::Survey;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jpeg_decoder::{Decoder, PixelFormat};

/// Whether a file is of such a kind: sequential with a scan for each component, or with samples other than 1 to 1, 2 to 1,
/// 1 to 2 and 2 by 2.
pub(super) fn is_rare(survey: &Survey) -> bool {
    let scan_for_each = !survey.header.progressive && survey.scans > 1;
    let usual = match survey.frame.sampling() {
        [_] => true,
        [first, others @ ..] => {
            matches!(first, (1 | 2, 1 | 2)) && others.iter().all(|&other| other == (1, 1))
        }
        [] => true,
    };
    scan_for_each || !usual
}

/// Decodes to RGB; `pixels` has the size that the frame header gives.
pub(super) fn run(data: &[u8], pixels: &mut [u8]) -> Result<(), String> {
    // As with the other decoder: damaged data must never take a process down.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut decoder = Decoder::new(data);
        let samples = decoder.decode().map_err(|error| error.to_string())?;
        let format = decoder.info().map(|info| info.pixel_format);
        Ok((samples, format))
    }));
    let (samples, format) = outcome.unwrap_or_else(|_| Err("the decoder gave up".to_owned()))?;
    let out = pixels.as_chunks_mut::<3>().0;
    match format {
        Some(PixelFormat::RGB24) if samples.len() == out.len() * 3 => {
            out.as_flattened_mut().copy_from_slice(&samples);
        }
        Some(PixelFormat::L8) if samples.len() == out.len() => {
            out.iter_mut()
                .zip(&samples)
                .for_each(|(pixel, &gray)| *pixel = [gray; 3]);
        }
        Some(PixelFormat::CMYK32) if samples.len() == out.len() * 4 => {
            let inks = samples.as_chunks::<4>().0;
            for (pixel, &[cyan, magenta, yellow, black]) in out.iter_mut().zip(inks) {
                let through = |ink: u8| {
                    let product = u32::from(255 - ink) * u32::from(255 - black);
                    ((product + 127) / 255) as u8
                };
                *pixel = [through(cyan), through(magenta), through(yellow)];
            }
        }
        _ => return Err("the size is not the one in the frame header".to_owned()),
    }
    Ok(())
}
