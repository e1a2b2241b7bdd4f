//! The operations of RandAugment on RGB bytes, each as Pillow computes it (Pillow is what AutoAugment's and torchvision's
//! programs call): equal to the byte, which `tests/augment.rs` checks.

/// What is done to a picture, with its strength.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// Nothing.
    Identity,
    /// Row y moves by `y * strength` pixels, to the left where that is above 0.
    ShearX(f64),
    /// Column x moves by `x * strength` pixels, upwards where that is above 0.
    ShearY(f64),
    /// So many pixels to the left.
    TranslateX(f64),
    /// So many pixels upwards.
    TranslateY(f64),
    /// Degrees, counter-clockwise about the middle.
    Rotate(f64),
    /// Black at 0, the picture at 1.
    Brightness(f32),
    /// Greys at 0, the picture at 1.
    Color(f32),
    /// One grey at 0, the picture at 1.
    Contrast(f32),
    /// Smoothed at 0, the picture at 1.
    Sharpness(f32),
    /// Bits that each channel keeps, 0 to 8.
    Posterize(u32),
    /// Values from here on are inverted; 256: none is.
    Solarize(u32),
    /// Each channel stretched to 0..255.
    AutoContrast,
    /// Each channel's histogram made flat.
    Equalize,
}

/// A square picture `[side, side, 3]` under operations.
#[derive(Debug)]
pub struct Canvas<'a> {
    /// RGB bytes.
    pub pixels: &'a mut [u8],
    /// In pixels.
    pub side: usize,
    /// What shows where the picture was moved away.
    pub fill: [u8; 3],
}

impl Canvas<'_> {
    /// Carries out one operation; `spare` is memory that is used again.
    pub fn apply(&mut self, operation: Operation, spare: &mut Vec<u8>) {
        let middle = self.side as f64 / 2.0;
        match operation {
            Operation::Identity => {}
            Operation::ShearX(level) => self.affine([1.0, level, 0.0, 0.0, 1.0, 0.0], spare),
            Operation::ShearY(level) => self.affine([1.0, 0.0, 0.0, level, 1.0, 0.0], spare),
            Operation::TranslateX(by) => self.affine([1.0, 0.0, by, 0.0, 1.0, 0.0], spare),
            Operation::TranslateY(by) => self.affine([1.0, 0.0, 0.0, 0.0, 1.0, by], spare),
            Operation::Rotate(degrees) => {
                let (sin, cos) = (-degrees.to_radians()).sin_cos();
                let (sin, cos) = (round15(sin), round15(cos));
                let x = cos * -middle + sin * -middle + middle;
                let y = -sin * -middle + cos * -middle + middle;
                self.affine([cos, sin, x, -sin, cos, y], spare);
            }
            Operation::Brightness(factor) => self.pixels.iter_mut().for_each(|value| {
                *value = blend(0, *value, factor);
            }),
            Operation::Color(factor) => {
                for pixel in self.pixels.as_chunks_mut::<3>().0 {
                    let grey = grey(pixel);
                    pixel.iter_mut().for_each(|v| *v = blend(grey, *v, factor));
                }
            }
            Operation::Contrast(factor) => {
                let greys = self.pixels.as_chunks::<3>().0.iter();
                let sum: u64 = greys.map(|pixel| u64::from(grey(pixel))).sum();
                let count = (self.side * self.side).max(1) as f64;
                let mean = (sum as f64 / count + 0.5) as u8; // a mean of bytes
                self.pixels
                    .iter_mut()
                    .for_each(|value| *value = blend(mean, *value, factor));
            }
            Operation::Sharpness(factor) => self.sharpen(factor, spare),
            Operation::Posterize(bits) => {
                let mask = !(0xffu32 >> bits.min(8)) as u8; // the low 8 bits
                self.pixels.iter_mut().for_each(|value| *value &= mask);
            }
            Operation::Solarize(threshold) => self.pixels.iter_mut().for_each(|value| {
                if u32::from(*value) >= threshold {
                    *value = 255 - *value;
                }
            }),
            Operation::AutoContrast => self.by_channel(stretch),
            Operation::Equalize => self.by_channel(equalize),
        }
    }

    /// Blots out a square of `side` pixels about a centre; what lies beyond the border is cut off.
    pub fn cut_out(&mut self, (x, y): (usize, usize), side: usize) {
        let range = |at: usize| {
            let first = at.saturating_sub(side / 2);
            first..(at + side - side / 2).min(self.side)
        };
        let (columns, rows) = (range(x), range(y));
        for row in rows {
            let start = row * self.side;
            let stretch = &mut self.pixels[3 * (start + columns.start)..3 * (start + columns.end)];
            stretch.as_chunks_mut::<3>().0.fill(self.fill);
        }
    }

    /// The pixel at (x, y) is taken from (ax + by + c, dx + ey + f), all at pixels' middles; in Pillow's 16 bits behind the
    /// point.
    fn affine(&mut self, [a, b, c, d, e, f]: [f64; 6], spare: &mut Vec<u8>) {
        spare.clear();
        spare.extend_from_slice(self.pixels);
        let fixed = |value: f64| (value * 65536.0 + 0.5).floor() as i64;
        let (step, rows) = ((fixed(a), fixed(d)), (fixed(b), fixed(e)));
        let (mut x0, mut y0) = (fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5));
        let side = self.side as i64;
        for row in self.pixels.chunks_exact_mut((3 * self.side).max(1)) {
            let (mut x, mut y) = (x0, y0);
            for pixel in row.as_chunks_mut::<3>().0 {
                let (column, line) = (x >> 16, y >> 16);
                *pixel = self.fill;
                if (0..side).contains(&column) && (0..side).contains(&line) {
                    let at = 3 * (line * side + column) as usize;
                    pixel.copy_from_slice(&spare[at..at + 3]);
                }
                (x, y) = (x + step.0, y + step.1);
            }
            (x0, y0) = (x0 + rows.0, y0 + rows.1);
        }
    }

    /// Blends with the picture smoothed by Pillow's `SMOOTH`: 3 x 3, a weight of 5 in the middle and 1 about it.
    fn sharpen(&mut self, factor: f32, spare: &mut Vec<u8>) {
        spare.clear();
        spare.extend_from_slice(self.pixels);
        let (side, row) = (self.side, 3 * self.side);
        for y in 0..side {
            for at in y * row..(y + 1) * row {
                let column = (at - y * row) / 3;
                let inside = (1..side.saturating_sub(1)).contains(&y)
                    && (1..side.saturating_sub(1)).contains(&column);
                let smooth = if inside {
                    let line = |at: usize| {
                        [at - 3, at, at + 3]
                            .map(|at| u32::from(spare[at]))
                            .iter()
                            .sum::<u32>()
                    };
                    let sum = line(at - row) + line(at) + line(at + row) + 4 * u32::from(spare[at]);
                    (sum as f32 / 13.0 + 0.5) as u8 // a mean of bytes
                } else {
                    spare[at]
                };
                self.pixels[at] = blend(smooth, spare[at], factor);
            }
        }
    }

    /// Puts each channel through a table made of its histogram.
    fn by_channel(&mut self, table: fn(&[u32; 256]) -> Option<[u8; 256]>) {
        for channel in 0..3 {
            let mut histogram = [0; 256];
            let values = self.pixels.iter().skip(channel).step_by(3);
            values.for_each(|value| histogram[usize::from(*value)] += 1);
            if let Some(table) = table(&histogram) {
                let values = self.pixels.iter_mut().skip(channel).step_by(3);
                values.for_each(|value| *value = table[usize::from(*value)]);
            }
        }
    }
}

fn round15(value: f64) -> f64 {
    (value * 1e15).round() / 1e15
}

/// Luma by ITU-R 601-2, in Pillow's whole numbers.
fn grey(pixel: &[u8; 3]) -> u8 {
    let [r, g, b] = pixel.map(u32::from);
    ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8 // the weights add up to 1
}

/// `from + factor * (to - from)`, cut off behind the point and at both ends.
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    let (from, to) = (f32::from(from), f32::from(to));
    // The cast saturates, which is the cutting off at both ends.
    (from + factor * (to - from)) as u8
}

/// Of `ImageOps.autocontrast`; none where there is one value only.
fn stretch(histogram: &[u32; 256]) -> Option<[u8; 256]> {
    let low = histogram.iter().position(|count| *count > 0)?;
    let high = histogram.iter().rposition(|count| *count > 0)?;
    if high <= low {
        return None;
    }
    let scale = 255.0 / (high - low) as f64;
    let offset = -(low as f64) * scale;
    Some(std::array::from_fn(|value| {
        // The cast saturates, and cuts off towards 0 as Python's int does.
        (value as f64 * scale + offset) as u8
    }))
}

/// Of `ImageOps.equalize`; none where there is too little to spread.
fn equalize(histogram: &[u32; 256]) -> Option<[u8; 256]> {
    let last = *histogram.iter().rfind(|count| **count > 0)?;
    let all: u32 = histogram.iter().sum();
    let step = (all - last) / 255;
    if step == 0 {
        return None;
    }
    let mut sum = step / 2;
    Some(std::array::from_fn(|value| {
        let level = (sum / step).min(255) as u8;
        sum += histogram[value];
        level
    }))
}
