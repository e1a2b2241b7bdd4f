//! What tells the classes of one supercategory apart: two inks of ten and one texture of five.

use super::raster::Colour;

/// The inks.
pub(super) const INKS: [Colour; 10] = [
    [214.0, 40.0, 40.0],   // red
    [242.0, 140.0, 30.0],  // orange
    [246.0, 222.0, 60.0],  // yellow
    [70.0, 170.0, 60.0],   // green
    [30.0, 190.0, 190.0],  // turquoise
    [40.0, 80.0, 210.0],   // blue
    [130.0, 50.0, 170.0],  // violet
    [240.0, 130.0, 190.0], // pink
    [245.0, 245.0, 240.0], // white
    [35.0, 32.0, 38.0],    // black
];

/// How two inks share a surface. Each gives both inks half of it, so that the mean colour says nothing of the texture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Texture {
    /// Level stripes.
    Level,
    /// Upright stripes.
    Upright,
    /// A chessboard.
    Checks,
    /// Dots on a grid.
    Dots,
    /// Rings around the middle.
    Rings,
}

/// The look of a class: the same in every set, whatever the seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Look {
    pub(super) inks: [Colour; 2],
    pub(super) texture: Texture,
}

/// Side of a texture's repeating cell, in outline units (the outline is 2 long).
const PERIOD: f32 = 0.7;

/// The look of a class (index among COCO's 80).
pub(super) fn look(class: usize) -> Look {
    const TEXTURES: [Texture; 5] = [
        Texture::Level,
        Texture::Upright,
        Texture::Checks,
        Texture::Dots,
        Texture::Rings,
    ];
    // 7 has no factor in common with 45, the number of pairs of ten inks: neighbours in COCO's list, which are mostly of
    // one silhouette, get far pairs, and a pair comes back only after 45 classes, then with another texture.
    let (a, b) = pair((class * 7) % 45);
    Look {
        inks: [INKS[a], INKS[b]],
        texture: TEXTURES[(class + class / 45) % 5],
    }
}

/// The `n`th of the 45 pairs of different inks.
fn pair(n: usize) -> (usize, usize) {
    let mut rest = n;
    for a in 0..INKS.len() {
        let partners = INKS.len() - 1 - a;
        if rest < partners {
            return (a, a + 1 + rest);
        }
        rest -= partners;
    }
    (0, 1)
}

impl Texture {
    /// The share of the second ink, 0 to 1, at (u, v) of the outline; `sharpness` is pixels per outline unit, so that
    /// edges are one pixel wide.
    pub(super) fn share(self, u: f32, v: f32, sharpness: f32) -> f32 {
        let distance = match self {
            Texture::Level => wave(v),
            Texture::Upright => wave(u),
            Texture::Checks => {
                let (a, b) = (wave(u), wave(v));
                // The nearer edge decides how soft, the two signs which ink.
                if (a > 0.0) == (b > 0.0) {
                    a.abs().min(b.abs())
                } else {
                    -a.abs().min(b.abs())
                }
            }
            Texture::Dots => {
                let (x, y) = (cell(u) - 0.5, cell(v) - 0.5);
                // A disc of this radius covers half of its cell: sqrt(1 / 2π).
                (0.398_942 - (x * x + y * y).sqrt()) * PERIOD
            }
            Texture::Rings => wave((u * u + v * v).sqrt()),
        };
        (distance * sharpness + 0.5).clamp(0.0, 1.0)
    }
}

/// Position within the repeating cell, 0 to 1.
fn cell(x: f32) -> f32 {
    let x = x / PERIOD;
    x - x.floor()
}

/// A triangle wave of the texture's period, positive on half of it: the signed distance to the nearest stripe's edge.
fn wave(x: f32) -> f32 {
    ((cell(x) - 0.5).abs() - 0.25) * PERIOD
}

#[cfg(test)]
mod tests {
    use super::super::categories::CATEGORIES;
    use super::*;

    #[test]
    fn no_two_classes_of_a_supercategory_look_alike() {
        for (a, first) in CATEGORIES.iter().enumerate() {
            for (b, second) in CATEGORIES.iter().enumerate().skip(a + 1) {
                if first.supercategory == second.supercategory {
                    assert_ne!(
                        look(a).inks,
                        look(b).inks,
                        "{} and {}",
                        first.name,
                        second.name
                    );
                } else {
                    assert_ne!(look(a), look(b), "{} and {}", first.name, second.name);
                }
            }
        }
    }

    #[test]
    fn every_texture_gives_each_ink_half_of_the_surface() {
        for texture in [
            Texture::Level,
            Texture::Upright,
            Texture::Checks,
            Texture::Dots,
            Texture::Rings,
        ] {
            // given a wide field of many periods
            let n = 700;
            let at = |i: usize| (i as f32 + 0.5) * 20.0 * PERIOD / n as f32;
            // when the second ink's share is averaged over it
            let sum: f64 = (0..n * n)
                .map(|i| f64::from(texture.share(at(i % n), at(i / n), 30.0)))
                .sum();
            // then it is a half
            let mean = sum / (n * n) as f64;
            assert!((mean - 0.5).abs() < 0.02, "{texture:?}: {mean}");
        }
    }
}
