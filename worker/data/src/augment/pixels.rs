//! What is done to a training picture's pixels after its crop: RandAugment (Cubuk, Zoph, Shlens, Le 2019,
//! <https://arxiv.org/abs/1909.13719>) and cutout (DeVries and Taylor 2017, <https://arxiv.org/abs/1708.04552>). A pure
//! function of (seed, epoch, sample id).

use super::Draws;
use super::operations::{Canvas, Operation};

/// Strength that is the largest.
const MOST: f64 = 10.0;

/// The stream of draws is another than the crop's.
const STREAM: u64 = 0x7069_7865_6c73_0001;

/// What is done to the pixels of training pictures. The default does nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PixelAugment {
    /// Operations of RandAugment on each picture, drawn with replacement; 0: none.
    pub operations: u32,
    /// Their strength, 0 to 10.
    pub magnitude: f64,
    /// Side of the square that cutout blots out, as a share of the picture's; 0: none.
    pub cutout: f64,
    /// What shows where nothing is left of the picture: the mean of all pictures, which is 0 to the model.
    pub fill: [u8; 3],
}

impl PixelAugment {
    /// Changes `pixels` `[side, side, 3]` in place; `spare` is memory that is used again.
    pub fn apply(
        &self,
        (seed, epoch, sample_id): (u64, u64, u32),
        side: u32,
        pixels: &mut [u8],
        spare: &mut Vec<u8>,
    ) {
        if self.operations == 0 && self.cutout <= 0.0 {
            return;
        }
        let mut random = Draws::new(seed ^ STREAM, epoch, sample_id);
        let mut canvas = Canvas {
            pixels,
            side: side as usize,
            fill: self.fill,
        };
        for _ in 0..self.operations {
            canvas.apply(self.operation(&mut random, side), spare);
        }
        if self.cutout > 0.0 {
            let centre = (random.below(side) as usize, random.below(side) as usize);
            let square = (self.cutout * f64::from(side)).round() as usize; // not above the side
            canvas.cut_out(centre, square);
        }
    }

    /// One of the fourteen operations of the paper's figure 2, all as likely, at the largest strengths of torchvision's
    /// `RandAugment`; the direction of those that have one is drawn.
    fn operation(&self, random: &mut Draws, side: u32) -> Operation {
        let share = (self.magnitude / MOST).clamp(0.0, 1.0);
        let which = random.below(14);
        let sign = if random.below(2) == 1 { 1.0 } else { -1.0 };
        let signed = |most: f64| sign * share * most;
        // An enhancement of 1 changes nothing.
        let enhanced = || (1.0 + signed(0.9)) as f32;
        match which {
            0 => Operation::Identity,
            1 => Operation::ShearX(signed(0.3)),
            2 => Operation::ShearY(signed(0.3)),
            3 => Operation::TranslateX(signed(150.0 / 331.0 * f64::from(side))),
            4 => Operation::TranslateY(signed(150.0 / 331.0 * f64::from(side))),
            5 => Operation::Rotate(signed(30.0)),
            6 => Operation::Brightness(enhanced()),
            7 => Operation::Color(enhanced()),
            8 => Operation::Contrast(enhanced()),
            9 => Operation::Sharpness(enhanced()),
            10 => Operation::Posterize(8 - (4.0 * share).round() as u32),
            11 => Operation::Solarize((255.0 * (1.0 - share)).round() as u32),
            12 => Operation::AutoContrast,
            _ => Operation::Equalize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: u32 = 32;

    fn picture() -> Vec<u8> {
        let mut random = Draws::new(1, 2, 3);
        (0..SIDE * SIDE * 3)
            .map(|_| random.below(256) as u8)
            .collect()
    }

    fn augmented(augment: PixelAugment, key: (u64, u64, u32)) -> Vec<u8> {
        let mut pixels = picture();
        augment.apply(key, SIDE, &mut pixels, &mut Vec::new());
        pixels
    }

    const BOTH: PixelAugment = PixelAugment {
        operations: 2,
        magnitude: 9.0,
        cutout: 0.5,
        fill: [1, 2, 3],
    };

    #[test]
    fn the_same_seed_epoch_and_sample_give_the_same_picture_and_each_counts() {
        let first = augmented(BOTH, (1, 2, 3));
        assert_eq!(first, augmented(BOTH, (1, 2, 3)));
        for other in [(2, 2, 3), (1, 3, 3), (1, 2, 4)] {
            assert_ne!(first, augmented(BOTH, other));
        }
    }

    #[test]
    fn the_default_changes_nothing() {
        assert_eq!(augmented(PixelAugment::default(), (1, 2, 3)), picture());
    }

    #[test]
    fn cutout_blots_out_a_square_that_the_border_may_cut() {
        let cutout = PixelAugment {
            operations: 0,
            cutout: 0.25,
            ..BOTH
        };
        let mut sizes = std::collections::BTreeSet::new();
        for sample in 0..2000 {
            let pixels = augmented(cutout, (1, 0, sample));
            let (now, then) = (pixels.as_chunks::<3>().0, picture());
            let changed: Vec<usize> = (0..now.len())
                .filter(|&at| now[at] != then.as_chunks::<3>().0[at])
                .collect();
            let side = SIDE as usize;
            let columns = || changed.iter().map(|at| at % side);
            let rows = || changed.iter().map(|at| at / side);
            let extent = |values: &mut dyn Iterator<Item = usize>| {
                let all: Vec<usize> = values.collect();
                all.iter().max().unwrap() - all.iter().min().unwrap() + 1
            };
            let (width, height) = (extent(&mut columns()), extent(&mut rows()));
            assert_eq!(width * height, changed.len());
            assert!(changed.iter().all(|&at| now[at] == [1, 2, 3]));
            assert!((4..=8).contains(&width) && (4..=8).contains(&height));
            sizes.insert((width, height));
        }
        // Whole, cut at either side, and cut in a corner.
        assert!(sizes.contains(&(8, 8)) && sizes.contains(&(4, 8)) && sizes.contains(&(4, 4)));
    }

    #[test]
    fn every_operation_comes_up_about_as_often_and_in_both_directions() {
        let mut counts = std::collections::BTreeMap::<String, u32>::new();
        for sample in 0..14_000 {
            let operation = BOTH.operation(&mut Draws::new(5, 0, sample), 100);
            let words = format!("{operation:?}");
            let name = words.split('(').next().unwrap().to_owned();
            *counts.entry(name).or_default() += 1;
            if let Operation::Rotate(degrees) = operation {
                assert!((degrees.abs() - 27.0).abs() < 1e-9);
                *counts
                    .entry(format!("turned {}", degrees > 0.0))
                    .or_default() += 1;
            }
        }
        assert_eq!(counts.len(), 16);
        for (name, count) in counts {
            let expected = if name.starts_with("turned") {
                500.0
            } else {
                1000.0f64
            };
            assert!(
                (f64::from(count) - expected).abs() < 5.0 * expected.sqrt(),
                "{name} {count}"
            );
        }
    }

    #[test]
    fn strengths_at_ten_are_torchvisions_largest() {
        let most = PixelAugment {
            magnitude: 10.0,
            ..BOTH
        };
        for sample in 0..200 {
            match most.operation(&mut Draws::new(5, 1, sample), 331) {
                Operation::ShearX(by) | Operation::ShearY(by) => assert_eq!(by.abs(), 0.3),
                Operation::TranslateX(by) | Operation::TranslateY(by) => {
                    assert!((by.abs() - 150.0).abs() < 1e-9);
                }
                Operation::Brightness(factor) | Operation::Color(factor) => {
                    assert!((factor - 1.9).abs() < 1e-6 || (factor - 0.1).abs() < 1e-6);
                }
                Operation::Posterize(bits) => assert_eq!(bits, 4),
                Operation::Solarize(threshold) => assert_eq!(threshold, 0),
                _ => {}
            }
        }
    }
}
