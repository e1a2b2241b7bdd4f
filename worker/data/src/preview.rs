//! Small copies of pictures, for people who look through many.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::jpeg::{self, DecodeError};

/// JPEG quality of a copy.
const QUALITY: u8 = 72;

/// A small copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// A JPEG file.
    pub jpeg: Vec<u8>,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// The picture cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It cannot be made smaller: a bug in sizes, not in the picture.
    #[error("resizing: {0}")]
    Resize(String),
    /// The copy cannot be written.
    #[error("encoding: {0}")]
    Encode(#[from] jpeg_encoder::EncodingError),
}

/// A copy of a JPEG file whose longer side is at most `side` pixels, in the picture's own shape.
///
/// # Errors
/// [`PreviewError`].
pub fn preview(bytes: &[u8], side: u32) -> Result<Preview, PreviewError> {
    let (image, _) = jpeg::decode(bytes)?;
    let longer = image.width.max(image.height).max(1);
    let scaled = |length: u32| {
        let whole = u64::from(length) * u64::from(side.min(longer)) / u64::from(longer);
        // Not longer than `side`, which is what it was made from.
        (whole as u32).max(1)
    };
    let (width, height) = (scaled(image.width), scaled(image.height));
    let resize = |error: &dyn std::fmt::Display| PreviewError::Resize(error.to_string());
    let source = ImageRef::new(image.width, image.height, &image.pixels, PixelType::U8x3)
        .map_err(|e| resize(&e))?;
    let mut small = Image::new(width, height, PixelType::U8x3);
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .use_alpha(false);
    Resizer::new()
        .resize(&source, &mut small, &options)
        .map_err(|e| resize(&e))?;
    let mut jpeg = Vec::new();
    // Neither side is longer than JPEG's own limit: the source was a JPEG.
    jpeg_encoder::Encoder::new(&mut jpeg, QUALITY).encode(
        small.buffer(),
        width as u16,
        height as u16,
        jpeg_encoder::ColorType::Rgb,
    )?;
    Ok(Preview {
        width,
        height,
        jpeg,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_the_shape_and_is_a_picture_itself() {
        let (width, height) = (300u16, 100u16);
        let pixels: Vec<u8> = (0..u32::from(width) * u32::from(height))
            .flat_map(|i| [(i % 300 / 2) as u8, 80, 200])
            .collect();
        let mut file = Vec::new();
        jpeg_encoder::Encoder::new(&mut file, 95)
            .encode(&pixels, width, height, jpeg_encoder::ColorType::Rgb)
            .unwrap();

        let small = preview(&file, 60).unwrap();
        let (image, _) = jpeg::decode(&small.jpeg).unwrap();
        assert_eq!((image.width, image.height), (60, 20));
        assert_eq!((small.width, small.height), (60, 20));
        // Red grows from left to right.
        assert!(image.pixels[0] + 60 < image.pixels[59 * 3]);
        // A small picture stays as large as it is.
        assert_eq!(preview(&file, 1000).unwrap().width, 300);
        assert!(matches!(preview(b"no", 60), Err(PreviewError::Decode(_))));
    }
}
