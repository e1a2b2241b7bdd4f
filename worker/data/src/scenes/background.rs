//! What is behind the objects: two patterned fields, clutter and light.

use super::look::INKS;
use super::random::Stream;
use super::raster::{Canvas, Colour, fill};
use super::silhouette::Placement;

/// The two fields of a kind of scene, each with the colours it may have.
#[derive(Debug)]
pub(super) struct Backdrop {
    /// Above the horizon.
    pub(super) far: (Pattern, &'static [Colour]),
    /// Below it.
    pub(super) near: (Pattern, &'static [Colour]),
    /// Where the horizon may be, as shares of the height.
    pub(super) horizon: (f32, f32),
}

/// A pattern of light and dark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Nothing but unevenness.
    Plain,
    /// Courses of bricks.
    Bricks,
    /// Soft blobs.
    Clouds,
    /// Fine upright strokes.
    Blades,
    /// Uneven level lines.
    Waves,
    /// Upright panels.
    Panels,
    /// Broad level bands.
    Bands,
    /// Square tiles.
    Tiles,
    /// Long level planks.
    Planks,
}

/// Random values on a grid with smooth passages between: the unevenness of everything.
struct Noise {
    side: usize,
    values: Vec<f32>,
}

impl Noise {
    const SIDE: usize = 32;

    fn new(random: &mut Stream) -> Self {
        Noise {
            side: Self::SIDE,
            values: (0..Self::SIDE * Self::SIDE)
                .map(|_| random.between(-1.0, 1.0))
                .collect(),
        }
    }

    /// Between -1 and 1, smooth over a length of 1, repeating after 32.
    fn at(&self, x: f32, y: f32) -> f32 {
        let (fx, fy) = (x.floor(), y.floor());
        let (tx, ty) = (smooth(x - fx), smooth(y - fy));
        let wrap = |f: f32| (f as i64).rem_euclid(self.side as i64) as usize;
        let (x0, y0) = (wrap(fx), wrap(fy));
        let (x1, y1) = ((x0 + 1) % self.side, (y0 + 1) % self.side);
        let value = |x: usize, y: usize| self.values[y * self.side + x];
        let top = value(x0, y0) + (value(x1, y0) - value(x0, y0)) * tx;
        let bottom = value(x0, y1) + (value(x1, y1) - value(x0, y1)) * tx;
        top + (bottom - top) * ty
    }
}

fn smooth(t: f32) -> f32 {
    t * t * (3.0 - 2.0 * t)
}

/// Draws the backdrop over the whole canvas.
pub(super) fn draw(canvas: &mut Canvas, backdrop: &Backdrop, random: &mut Stream) {
    let noise = Noise::new(random);
    let horizon = random.between(backdrop.horizon.0, backdrop.horizon.1) * canvas.height as f32;
    let slope = random.between(-0.12, 0.12);
    let far = jitter(*random.pick(backdrop.far.1), random);
    let near = jitter(*random.pick(backdrop.near.1), random);
    let shift = (random.between(0.0, 8.0), random.between(0.0, 8.0));
    let unit = 1.0 / canvas.short_side();
    let middle = canvas.width as f32 / 2.0;
    for y in 0..canvas.height {
        for x in 0..canvas.width {
            let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
            let below = (py - horizon - slope * (px - middle) + 0.5).clamp(0.0, 1.0);
            let (u, v) = (px * unit + shift.0, py * unit + shift.1);
            let uneven = 14.0 * noise.at(u * 4.0, v * 4.0);
            let light = |pattern: Pattern| uneven + 26.0 * pattern.light(u, v, &noise);
            let mut colour = [0.0; 3];
            let lights = match below {
                b if b <= 0.0 => (light(backdrop.far.0), 0.0),
                b if b >= 1.0 => (0.0, light(backdrop.near.0)),
                _ => (light(backdrop.far.0), light(backdrop.near.0)),
            };
            for (c, (f, n)) in colour.iter_mut().zip(far.iter().zip(near)) {
                *c = (f + lights.0) * (1.0 - below) + (n + lights.1) * below;
            }
            canvas.pixels[y * canvas.width + x] = colour;
        }
    }
}

/// Scatters small shapes in the objects' own inks, so that an ink somewhere says little about what is there.
pub(super) fn clutter(canvas: &mut Canvas, random: &mut Stream) {
    let side = canvas.short_side();
    for _ in 0..6 + random.below(8) {
        let corners = 3 + random.below(4);
        let placement = Placement {
            center: (
                random.unit() * canvas.width as f32,
                random.unit() * canvas.height as f32,
            ),
            radius: random.between(0.03, 0.1) * side,
            aspect: random.between(0.4, 1.8),
            half_turn: random.between(-0.6, 0.6),
            flipped: false,
        };
        let shape: Vec<_> = (0..corners)
            .map(|i| {
                // A point on the unit circle at an uneven angle, by the tangent of its half.
                let t = (i as f32 + random.between(0.2, 0.8)) / corners as f32 * 4.0 - 2.0;
                let d = 1.0 + t * t;
                placement.to_picture(((1.0 - t * t) / d, 2.0 * t / d))
            })
            .collect();
        let ink = jitter(*random.pick(&INKS), random);
        let strength = random.between(0.5, 0.95);
        let (width, height) = (canvas.width, canvas.height);
        fill(&shape, width, height, |x, y, cover| {
            canvas.blend(y * width + x, ink, cover * strength)
        });
    }
}

/// The picture's light: exposure, a tint, and the grain of its pixels.
pub(super) fn expose(canvas: &mut Canvas, random: &mut Stream) {
    let exposure = random.between(0.82, 1.12);
    let tint = [
        random.between(0.92, 1.08),
        random.between(0.92, 1.08),
        random.between(0.92, 1.08),
    ];
    let grain = random.between(2.0, 8.0);
    for pixel in &mut canvas.pixels {
        let bits = random.next();
        for (channel, (value, tint)) in pixel.iter_mut().zip(tint).enumerate() {
            // Two sums of 8 bits make a triangular distribution of mean 0.
            let (a, b) = (
                (bits >> (channel * 16)) & 0xff,
                (bits >> (channel * 16 + 8)) & 0xff,
            );
            let noise = (a as f32 + b as f32) / 255.0 - 1.0;
            *value = (*value * exposure * tint + noise * grain).clamp(0.0, 255.0);
        }
    }
}

/// A colour near this one: lighter or darker, and each channel by itself a little.
pub(super) fn jitter(colour: Colour, random: &mut Stream) -> Colour {
    let light = random.between(0.9, 1.1);
    colour.map(|c| (c * light + random.between(-10.0, 10.0)).clamp(0.0, 255.0))
}

impl Pattern {
    /// Light at (u, v), measured in short sides: -1 dark to 1 light.
    fn light(self, u: f32, v: f32, noise: &Noise) -> f32 {
        let frac = |x: f32| x - x.floor();
        // Joints are a tenth of a cell wide; each cell has a shade of its own.
        let joint = |a: f32, b: f32| {
            if frac(a) < 0.1 || frac(b) < 0.1 {
                -1.0
            } else {
                0.0
            }
        };
        let shade = |a: f32, b: f32| 0.5 * noise.at(a.floor() * 3.0 + 0.5, b.floor() * 5.0 + 0.5);
        match self {
            Pattern::Plain => 0.0,
            Pattern::Bricks => {
                let row = (v * 9.0).floor();
                let a = u * 4.5 + 0.5 * (row - 2.0 * (row / 2.0).floor());
                joint(a, v * 9.0) + shade(a, row)
            }
            Pattern::Clouds => 0.9 * noise.at(u * 2.0, v * 5.0) + 0.5 * noise.at(u * 7.0, v * 9.0),
            Pattern::Blades => 1.1 * noise.at(u * 45.0, v * 8.0),
            Pattern::Waves => 1.2 * noise.at(u * 4.0, v * 26.0),
            Pattern::Panels => joint(u * 5.0, 0.5) + shade(u * 5.0, 0.0),
            Pattern::Bands => {
                if frac(v * 4.0) < 0.5 {
                    0.5
                } else {
                    -0.5
                }
            }
            Pattern::Tiles => joint(u * 6.0, v * 6.0) + shade(u * 6.0, v * 6.0),
            Pattern::Planks => {
                let row = (v * 7.0).floor();
                let a = u * 0.8 + noise.at(row * 3.0, 0.5);
                joint(a * 12.0 - 11.0 * a.floor(), v * 7.0) * 0.7
                    + shade(a, row)
                    + 0.3 * noise.at(u * 3.0, v * 40.0)
            }
        }
    }
}
