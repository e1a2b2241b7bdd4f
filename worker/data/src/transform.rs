//! From a decoded picture and a placement to the pixels a model sees: bilinear, antialiased, uint8, mirrored if wanted.
//! Conversion to float and normalisation are left to the device.

use crate::augment::Placement;
use crate::jpeg::RgbImage;
use fast_image_resize::images::{CroppedImage, Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

/// Why pixels cannot be made: a bug in the caller's sizes, not in a picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("resizing: {0}")]
pub struct TransformError(String);

/// Resizes one picture after another with the same scratch memory.
#[derive(Debug, Default)]
pub struct Resampler {
    resizer: Resizer,
}

impl Resampler {
    /// A resampler for one thread.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes the placement's part of `image`, resized to `size`² and mirrored if it says so, to `out` `[size, size, 3]`.
    ///
    /// The filter is the triangle of torchvision's `resize(antialias=True)`.
    ///
    /// # Errors
    /// [`TransformError`] when `out` or the image's pixels have the wrong length.
    pub fn render(
        &mut self,
        image: &RgbImage,
        placement: &Placement,
        size: u32,
        out: &mut [u8],
    ) -> Result<(), TransformError> {
        let error = |e: &dyn std::fmt::Display| TransformError(e.to_string());
        let source = ImageRef::new(image.width, image.height, &image.pixels, PixelType::U8x3)
            .map_err(|e| error(&e))?;
        let row = size as usize * 3;
        if row == 0 || out.len() != row * size as usize {
            return Err(TransformError(format!(
                "{} bytes of room for {size} x {size} pixels",
                out.len()
            )));
        }
        // The filter sees the placement's own pixels and none beyond: as in torchvision, which crops and then resizes.
        let part = placement.region();
        let left = part.left.min(image.width.saturating_sub(1));
        let top = part.top.min(image.height.saturating_sub(1));
        let (width, height) = (
            part.width.min(image.width - left),
            part.height.min(image.height - top),
        );
        let part = CroppedImage::new(&source, left, top, width, height).map_err(|e| error(&e))?;
        // Fractions may stick out by a rounding error, which the resizer refuses.
        let (right, bottom) = (f64::from(width), f64::from(height));
        let left = (placement.left - f64::from(left)).clamp(0.0, right);
        let top = (placement.top - f64::from(top)).clamp(0.0, bottom);
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
            .use_alpha(false)
            .crop(
                left,
                top,
                placement.width.min(right - left),
                placement.height.min(bottom - top),
            );
        {
            let mut target = Image::from_slice_u8(size, size, &mut *out, PixelType::U8x3)
                .map_err(|e| error(&e))?;
            self.resizer
                .resize(&part, &mut target, &options)
                .map_err(|e| error(&e))?;
        }
        if placement.flip {
            out.chunks_exact_mut(row).for_each(mirror);
        }
        Ok(())
    }
}

/// Turns a row of RGB pixels around.
fn mirror(row: &mut [u8]) {
    let (pixels, _) = row.as_chunks_mut::<3>();
    pixels.reverse();
}
