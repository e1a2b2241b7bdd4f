//! From a decoded picture and a placement to the pixels a model sees: bilinear, antialiased, uint8, mirrored if wanted.
//! Conversion to float and normalisation are left to the device.

mod near;

use crate::augment::Placement;
use crate::jpeg::RgbImage;
use fast_image_resize::images::{CroppedImage, Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use near::{Near, Part};

/// Why pixels cannot be made: a bug in the caller's sizes, not in a picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("resizing: {0}")]
pub struct TransformError(String);

/// Resizes one picture after another with the same scratch memory.
#[derive(Debug, Default)]
pub struct Resampler {
    near: Near,
    /// For what shrinks to less than half its size.
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
        self.render_part(image, (0, 0), placement, size, out)
    }

    /// The same where `image` is a part of its picture, whose first pixel is that of column and row `origin`; it has at
    /// least the placement's pixels. Which others it has makes no difference.
    ///
    /// # Errors
    /// [`TransformError`] when `out` or the image's pixels have the wrong length.
    pub fn render_part(
        &mut self,
        image: &RgbImage,
        origin: (u32, u32),
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
        let region = placement.region();
        let inner = |start: u32, origin: u32, length: u32, most: u32| {
            let start = start.saturating_sub(origin).min(most.saturating_sub(1));
            (start, length.min(most - start))
        };
        let (left, width) = inner(region.left, origin.0, region.width, image.width);
        let (top, height) = inner(region.top, origin.1, region.height, image.height);
        // Fractions may stick out by a rounding error, which the resizer refuses.
        let (right, bottom) = (f64::from(width), f64::from(height));
        let shown_left = (placement.left - f64::from(region.left)).clamp(0.0, right);
        let shown_top = (placement.top - f64::from(region.top)).clamp(0.0, bottom);
        let shown_width = placement.width.min(right - shown_left);
        let shown_height = placement.height.min(bottom - shown_top);
        let part = Part {
            pixels: &image.pixels,
            stride: image.width as usize * 3,
            origin: (left as usize, top as usize),
            size: (width as usize, height as usize),
            shown: [(shown_left, shown_width), (shown_top, shown_height)],
        };
        let side = size as usize;
        if self.near.resize(&part, side, placement.flip, out) {
            return Ok(());
        }
        let part = CroppedImage::new(&source, left, top, width, height).map_err(|e| error(&e))?;
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
            .use_alpha(false)
            .crop(shown_left, shown_top, shown_width, shown_height);
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
