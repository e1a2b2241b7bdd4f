//! Which part of a picture a sample shows: a pure function of (seed, epoch, sample id), never of who asks for it.

use crate::jpeg::Region;
pub mod operations;
pub mod pixels;

/// Tries of a random resized crop before it takes the middle, as in torchvision.
const TRIES: usize = 10;

/// Augmentation of training pictures.
#[derive(Clone, Debug, PartialEq)]
pub enum TrainTransform {
    /// Area and aspect ratio drawn from ranges (Szegedy et al. 2015, <https://arxiv.org/abs/1409.4842>; torchvision's
    /// `RandomResizedCrop`), mirrored half the time.
    RandomResizedCrop {
        /// Range of the crop's share of the area, within (0, 1].
        scale: (f64, f64),
        /// Range of width / height, drawn on a logarithmic scale.
        ratio: (f64, f64),
    },
    /// Squash to `resize`², crop at one of 13 fixed places with sides from `scales` (Wang et al. 2016,
    /// <https://arxiv.org/abs/1608.00859>, `GroupMultiScaleCrop`), mirrored half the time.
    MultiScaleCrop {
        /// Side of the square that the picture is thought squashed to, pixels.
        resize: u32,
        /// Crop sides as shares of `resize`, falling.
        scales: Vec<f64>,
        /// How far apart in `scales` width and height may be.
        max_distort: usize,
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
    /// Left edge, pixels, >= 0.
    pub left: f64,
    /// Upper edge, pixels, >= 0.
    pub top: f64,
    /// Width, pixels, > 0.
    pub width: f64,
    /// Height, pixels, > 0.
    pub height: f64,
    /// Mirror left and right.
    pub flip: bool,
}

impl Placement {
    /// The whole picture, not mirrored: what validation shows (squashed to a square).
    #[must_use]
    pub fn whole(width: u32, height: u32) -> Self {
        Self {
            left: 0.0,
            top: 0.0,
            width: width.into(),
            height: height.into(),
            flip: false,
        }
    }

    /// The whole pixels that it takes in.
    #[must_use]
    pub fn region(&self) -> Region {
        let (left, top) = (self.left.max(0.0).floor(), self.top.max(0.0).floor());
        Region {
            left: left as u32,
            top: top as u32,
            width: ((self.left + self.width).ceil() - left) as u32,
            height: ((self.top + self.height).ceil() - top) as u32,
        }
    }
}

impl TrainTransform {
    /// The experiments' random resized crop: 0.4 to 1 of the area, 3:4 to 4:3.
    #[must_use]
    pub fn random_resized_crop() -> Self {
        Self::RandomResizedCrop {
            scale: (0.4, 1.0),
            ratio: (3.0 / 4.0, 4.0 / 3.0),
        }
    }

    /// The experiments' multi-scale crop: from 512², sides 1 to 0.5, width and height at most two scales apart.
    #[must_use]
    pub fn multi_scale_crop() -> Self {
        Self::MultiScaleCrop {
            resize: 512,
            scales: vec![1.0, 0.875, 0.75, 0.66, 0.5],
            max_distort: 2,
        }
    }

    /// Whether the numbers make sense for an output of `size`².
    ///
    /// # Errors
    /// A text that names the number and its range.
    pub fn validate(&self, size: u32) -> Result<(), String> {
        match self {
            Self::RandomResizedCrop {
                scale: (low, high), ..
            } if !(0.0 < *low && low <= high && *high <= 1.0) => Err(format!(
                "scale {low} to {high} is not a range within 0 to 1"
            )),
            Self::RandomResizedCrop {
                ratio: (low, high), ..
            } if !(0.0 < *low && low <= high && high.is_finite()) => {
                Err(format!("ratio {low} to {high} is not a range above 0"))
            }
            Self::MultiScaleCrop { resize: 0, .. } | Self::SquashCrop { resize: 0 } => {
                Err("resize is 0".to_owned())
            }
            Self::MultiScaleCrop { scales, .. } if scales.is_empty() => {
                Err("scales is empty".to_owned())
            }
            Self::MultiScaleCrop { scales, .. } => {
                match scales.iter().find(|&&s| !(0.0 < s && s <= 1.0)) {
                    Some(scale) => Err(format!("scale {scale} is not within 0 to 1")),
                    None => Ok(()),
                }
            }
            Self::SquashCrop { resize } if *resize < size => Err(format!(
                "resize {resize} is smaller than the output size {size}"
            )),
            _ => Ok(()),
        }
    }

    /// The placement for one sample in one epoch, for a picture of `width` x `height` (both > 0) shown at `size`².
    #[must_use]
    pub fn draw(
        &self,
        seed: u64,
        epoch: u64,
        sample_id: u32,
        width: u32,
        height: u32,
        size: u32,
    ) -> Placement {
        let mut random = Draws::new(seed, epoch, sample_id);
        let (w, h) = (f64::from(width), f64::from(height));
        // First, so that whether a sample is mirrored does not depend on how often its crop was tried.
        let flip = random.below(2) == 1;
        let placement = match self {
            Self::None => return Placement::whole(width, height),
            Self::RandomResizedCrop { scale, ratio } => {
                random_resized_crop(&mut random, w, h, *scale, *ratio)
            }
            Self::MultiScaleCrop {
                resize,
                scales,
                max_distort,
            } => multi_scale_crop(&mut random, *resize, scales, *max_distort, size)
                .scaled_from(*resize, w, h),
            Self::SquashCrop { resize } => {
                let side = size.min(*resize);
                let left = random.below((resize - side) + 1);
                let top = random.below((resize - side) + 1);
                Square {
                    left,
                    top,
                    width: side,
                    height: side,
                }
                .scaled_from(*resize, w, h)
            }
        };
        Placement { flip, ..placement }
    }
}

fn random_resized_crop(
    random: &mut Draws,
    w: f64,
    h: f64,
    scale: (f64, f64),
    ratio: (f64, f64),
) -> Placement {
    for _ in 0..TRIES {
        let area = w * h * random.between(scale.0, scale.1);
        let aspect = random.between(ratio.0.ln(), ratio.1.ln()).exp();
        let width = (area * aspect).sqrt().round();
        let height = (area / aspect).sqrt().round();
        if (1.0..=w).contains(&width) && (1.0..=h).contains(&height) {
            let top = f64::from(random.below((h - height) as u32 + 1));
            let left = f64::from(random.below((w - width) as u32 + 1));
            return Placement {
                left,
                top,
                width,
                height,
                flip: false,
            };
        }
    }
    // The middle, with the aspect ratio brought into range.
    let (width, height) = match w / h {
        aspect if aspect < ratio.0 => (w, (w / ratio.0).round().clamp(1.0, h)),
        aspect if aspect > ratio.1 => ((h * ratio.1).round().clamp(1.0, w), h),
        _ => (w, h),
    };
    Placement {
        left: ((w - width) / 2.0).floor(),
        top: ((h - height) / 2.0).floor(),
        width,
        height,
        flip: false,
    }
}

/// A crop within the square that a picture is squashed to.
struct Square {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl Square {
    fn scaled_from(&self, side: u32, w: f64, h: f64) -> Placement {
        let (x, y) = (w / f64::from(side), h / f64::from(side));
        Placement {
            left: f64::from(self.left) * x,
            top: f64::from(self.top) * y,
            width: f64::from(self.width) * x,
            height: f64::from(self.height) * y,
            flip: false,
        }
    }
}

fn multi_scale_crop(
    random: &mut Draws,
    resize: u32,
    scales: &[f64],
    max_distort: usize,
    size: u32,
) -> Square {
    // A side that is the output's size but for rounding is the output's size.
    let side = |scale: &f64| match ((f64::from(resize) * scale) as u32).clamp(1, resize) {
        side if side.abs_diff(size) < 3 && size <= resize => size,
        side => side,
    };
    let sides: Vec<u32> = scales.iter().map(side).collect();
    let pairs: Vec<(u32, u32)> = (0..sides.len())
        .flat_map(|i| (0..sides.len()).map(move |j| (i, j)))
        .filter(|&(i, j)| i.abs_diff(j) <= max_distort)
        .map(|(i, j)| (sides[j], sides[i]))
        .collect();
    let (width, height) = match pairs.len() {
        0 => (resize, resize),
        count => pairs[random.below(count as u32) as usize],
    };
    // In quarters of the room that is left: corners, centre, middles of the edges, and the quarter points.
    const PLACES: [(u32, u32); 13] = [
        (0, 0),
        (4, 0),
        (0, 4),
        (4, 4),
        (2, 2),
        (0, 2),
        (4, 2),
        (2, 4),
        (2, 0),
        (1, 1),
        (3, 1),
        (1, 3),
        (3, 3),
    ];
    let (x, y) = PLACES[random.below(PLACES.len() as u32) as usize];
    Square {
        left: x * ((resize - width) / 4),
        top: y * ((resize - height) / 4),
        width,
        height,
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014) from a state that is a hash of the three numbers: no state outlives a sample.
struct Draws(u64);

impl Draws {
    fn new(seed: u64, epoch: u64, sample_id: u32) -> Self {
        let state = mix(seed ^ 0x243f_6a88_85a3_08d3);
        let state = mix(state ^ epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self(mix(
            state ^ u64::from(sample_id).wrapping_mul(0xd1b5_4a32_d192_ed03)
        ))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in [low, high).
    fn between(&mut self, low: f64, high: f64) -> f64 {
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        low + unit * (high - low)
    }

    /// Uniform in 0..bound; the bias of multiply-and-shift is below 2^-32.
    fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u32
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
