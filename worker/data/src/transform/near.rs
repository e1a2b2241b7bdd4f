//! Resizing to something between any enlargement and half the size, which is what a model is shown of nearly all
//! pictures: then a pixel is made of at most four in each direction, and eight neighbours of those that lie within
//! sixteen, so that one shuffle gathers them.
//!
//! ```text
//! row of RGB --split--> three planes --across--> planes --join--> one of four rows held --down--> row of the target
//! ```
//!
//! All of it happens while the few rows are in the nearest cache. Like Pillow it goes across first, rounds to uint8 between
//! the two directions, and weighs with whole numbers; these have 14 bits where its have 22.

use crate::rgb;
use fearless_simd::{Bytes, Level, Simd, SimdBase, i16x16, i32x8, u8x16};

/// Fraction bits of weights.
const BITS: u32 = 14;
/// Most pixels that make one, in one direction.
const MOST: usize = 4;

/// What makes one pixel in one direction: the pixels from `first` on. Weights are none below zero and 1 together.
#[derive(Clone, Copy, Debug, Default)]
struct Taps {
    first: usize,
    weights: [i16; MOST],
}

impl Taps {
    /// Whether the first two pixels are all.
    fn is_pair(&self) -> bool {
        self.weights[2] == 0 && self.weights[3] == 0
    }
}

/// Two pixels for each of eight neighbours: they lie within sixteen.
#[derive(Clone, Copy, Debug)]
struct Gather {
    start: usize,
    places: [u8; 16],
    weights: [i16; 16],
}

/// A part of a picture.
pub(super) struct Part<'a> {
    /// The picture, in rows of RGB.
    pub(super) pixels: &'a [u8],
    /// Bytes of a row.
    pub(super) stride: usize,
    /// First column and row of the part.
    pub(super) origin: (usize, usize),
    /// Its columns and rows.
    pub(super) size: (usize, usize),
    /// What of it to show, in its pixels: where it begins and how long it is, across and down.
    pub(super) shown: [(f64, f64); 2],
}

/// Memory that is used again.
#[derive(Debug, Default)]
pub(super) struct Near {
    columns: Vec<Taps>,
    rows: Vec<Taps>,
    gathers: Vec<Gather>,
    planes: [Vec<u8>; 3],
    held: [Vec<u8>; MOST],
}

impl Near {
    /// Resizes to `size`², mirrored if wanted. `false`, and nothing done, where the picture shrinks more than this can do.
    pub(super) fn resize(
        &mut self,
        part: &Part<'_>,
        size: usize,
        flip: bool,
        out: &mut [u8],
    ) -> bool {
        let [across, down] = part.shown;
        let (width, height) = part.size;
        if !weigh(across, width, size, &mut self.columns)
            || !weigh(down, height, size, &mut self.rows)
        {
            return false;
        }
        if flip {
            self.columns.reverse();
        }
        if !self.gather() {
            return false;
        }
        for plane in &mut self.planes {
            // A gather reads sixteen from wherever it starts, and starts at most a pair behind the last pixel.
            plane.resize(width.next_multiple_of(16) + 16 + MOST, 0);
        }
        for row in &mut self.held {
            row.resize(size.next_multiple_of(16) * 3, 0);
        }
        self.run_widest(part, size, out);
        true
    }

    /// Sorts the columns' weights by how they are used. `false` where eight neighbours lie too far apart.
    fn gather(&mut self) -> bool {
        let pairs = self.pairs();
        self.gathers.clear();
        // Two eights at a time; those behind the last column are weighed with nothing.
        let eights = self.columns.chunks(8).chain([&[][..]]);
        for taps in eights.take(self.columns.len().div_ceil(16) * 2) {
            for pair in 0..pairs {
                let firsts = taps.iter().map(|taps| taps.first);
                let start = firsts.min().unwrap_or_default() + pair * 2;
                let (mut places, mut weights) = ([0; 16], [0; 16]);
                for (lane, taps) in taps.iter().enumerate() {
                    for index in [0, 1] {
                        let weight = taps.weights[pair * 2 + index];
                        if weight == 0 {
                            continue;
                        }
                        let place = taps.first + pair * 2 + index - start;
                        if place > 15 {
                            return false;
                        }
                        places[lane * 2 + index] = place as u8;
                        weights[lane * 2 + index] = weight;
                    }
                }
                self.gathers.push(Gather {
                    start,
                    places,
                    weights,
                });
            }
        }
        true
    }

    /// Gathers for eight columns.
    fn pairs(&self) -> usize {
        if self.columns.iter().all(Taps::is_pair) {
            1
        } else {
            MOST / 2
        }
    }

    /// With AVX2 where there is any, as in the decoder.
    fn run_widest(&mut self, part: &Part<'_>, size: usize, out: &mut [u8]) {
        let level = Level::new();
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(simd) = level.as_avx2() {
                return simd.vectorize(
                    #[inline(always)]
                    || self.run(simd, part, size, out),
                );
            }
            let simd = level.as_sse2().expect("every x86-64 machine has SSE2");
            simd.vectorize(
                #[inline(always)]
                || self.run(simd, part, size, out),
            );
        }
        #[cfg(not(target_arch = "x86_64"))]
        fearless_simd::dispatch!(level, simd => self.run(simd, part, size, out))
    }

    #[inline(always)]
    fn run<S: Simd>(&mut self, simd: S, part: &Part<'_>, size: usize, out: &mut [u8]) {
        let one = self.pairs() == 1;
        let mut next = 0;
        for (taps, out) in self.rows.iter().zip(out.chunks_exact_mut(size * 3)) {
            next = next.max(taps.first);
            let count = if taps.is_pair() { 2 } else { MOST };
            let end = (taps.first + count).min(part.size.1);
            for line in next..end {
                let start = (part.origin.1 + line) * part.stride + part.origin.0 * 3;
                let row = &part.pixels[start..start + part.size.0 * 3];
                split(simd, row, &mut self.planes);
                let held = &mut self.held[line % MOST];
                if one {
                    across::<S, 1>(simd, &self.gathers, &self.planes, held);
                } else {
                    across::<S, 2>(simd, &self.gathers, &self.planes, held);
                }
            }
            next = next.max(end);
            // Rows that are not there, or old ones in their place, are weighed with nothing.
            let row = |index: usize| &*self.held[(taps.first + index) % MOST];
            let rows = [row(0), row(1), row(2), row(3)];
            if count == 2 {
                down::<S, 1>(simd, rows, &taps.weights, out);
            } else {
                down::<S, 2>(simd, rows, &taps.weights, out);
            }
        }
    }
}

/// Weights of the triangle filter, widened where the picture shrinks, as in Pillow's `precompute_coeffs`: for `size` pixels
/// made of those of `limit` in the stretch that begins at `start` and is `length` long. `false` where they are too many.
fn weigh((start, length): (f64, f64), limit: usize, size: usize, all: &mut Vec<Taps>) -> bool {
    let scale = length / size as f64;
    if scale >= 2.0 {
        return false;
    }
    let reach = scale.max(1.0);
    let slope = 1.0 / reach;
    let unit = f64::from(1_u32 << BITS);
    all.clear();
    for at in 0..size {
        let centre = start + (at as f64 + 0.5) * scale;
        // From f64 to usize, below zero is zero.
        let first = ((centre - reach + 0.5) as usize).min(limit.saturating_sub(1));
        let end = ((centre + reach + 0.5) as usize).min(limit).max(first + 1);
        let mut values = [0.0; MOST];
        let Some(values) = values.get_mut(..end - first) else {
            return false;
        };
        for (value, at) in values.iter_mut().zip(first..) {
            *value = (1.0 - (at as f64 + 0.5 - centre).abs() * slope).max(0.0);
        }
        let sum: f64 = values.iter().sum();
        let factor = if sum > 0.0 { unit / sum } else { 0.0 };
        let mut weights = [0; MOST];
        let (mut left, mut most) = (1_i16 << BITS, 0);
        for (index, value) in values.iter().enumerate() {
            weights[index] = (value * factor + 0.5) as i16;
            left -= weights[index];
            if weights[index] > weights[most] {
                most = index;
            }
        }
        // Together they are 1 exactly, so that an even colour stays what it is.
        weights[most] += left;
        all.push(Taps { first, weights });
    }
    true
}

/// A row of RGB to its planes.
#[inline(always)]
fn split<S: Simd>(simd: S, row: &[u8], planes: &mut [Vec<u8>; 3]) {
    let [red, green, blue] = planes;
    let (reds, greens) = (red.as_chunks_mut::<16>().0, green.as_chunks_mut::<16>().0);
    let planes = reds.iter_mut().zip(greens);
    let mut planes = planes.zip(blue.as_chunks_mut::<16>().0);
    let (chunks, rest) = row.as_chunks::<48>();
    for (pixels, ((red, green), blue)) in chunks.iter().zip(&mut planes) {
        let channels = rgb::split(simd, pixels);
        *red = channels[0].into();
        *green = channels[1].into();
        *blue = channels[2].into();
    }
    if let Some(((red, green), blue)) = planes.next() {
        for (at, &[r, g, b]) in rest.as_chunks::<3>().0.iter().enumerate() {
            (red[at], green[at], blue[at]) = (r, g, b);
        }
    }
}

/// A row's planes to a row of RGB of the target's width.
#[inline(always)]
fn across<S: Simd, const PAIRS: usize>(
    simd: S,
    gathers: &[Gather],
    planes: &[Vec<u8>; 3],
    out: &mut [u8],
) {
    let [red, green, blue] = planes;
    let sixteens = gathers.chunks_exact(2 * PAIRS);
    for (gathers, out) in sixteens.zip(out.as_chunks_mut::<48>().0) {
        let red = sixteen::<S, PAIRS>(simd, gathers, red);
        let green = sixteen::<S, PAIRS>(simd, gathers, green);
        let blue = sixteen::<S, PAIRS>(simd, gathers, blue);
        rgb::join(simd, [red, green, blue], out);
    }
}

/// Sixteen neighbours of one channel.
#[inline(always)]
fn sixteen<S: Simd, const PAIRS: usize>(simd: S, gathers: &[Gather], plane: &[u8]) -> u8x16<S> {
    let half = i32x8::splat(simd, HALF);
    let (mut low, mut high) = (half, half);
    for pair in 0..PAIRS {
        low += gathered(simd, &gathers[pair], plane);
        high += gathered(simd, &gathers[PAIRS + pair], plane);
    }
    narrow(simd, low, high)
}

/// What a pair of pixels gives to each of eight neighbours.
#[inline(always)]
fn gathered<S: Simd>(simd: S, gather: &Gather, plane: &[u8]) -> i32x8<S> {
    let near = u8x16::from_slice(simd, &plane[gather.start..gather.start + 16]);
    let places = u8x16::from_slice(simd, &gather.places);
    let pixels = widen(simd, simd.swizzle_dyn_u8x16(near, places));
    simd.pairwise_dot_product_i16x16(pixels, i16x16::from_slice(simd, &gather.weights))
}

/// A row of the target from those held.
#[inline(always)]
fn down<S: Simd, const PAIRS: usize>(
    simd: S,
    rows: [&[u8]; MOST],
    weights: &[i16; MOST],
    out: &mut [u8],
) {
    let mut factors = [i16x16::splat(simd, 0); PAIRS];
    for (factors, pair) in factors.iter_mut().zip(weights.as_chunks::<2>().0) {
        let &[first, second] = pair;
        let (first, second) = (i16x16::splat(simd, first), i16x16::splat(simd, second));
        *factors = simd.interleave_i16x16(first, second).0;
    }
    let rows = [
        rows[0].as_chunks::<16>().0,
        rows[1].as_chunks::<16>().0,
        rows[2].as_chunks::<16>().0,
        rows[3].as_chunks::<16>().0,
    ];
    let (chunks, rest) = out.as_chunks_mut::<16>();
    let whole = chunks.len();
    for (at, chunk) in chunks.iter_mut().enumerate() {
        *chunk = blended(simd, &rows, at, &factors).into();
    }
    if !rest.is_empty() {
        let last: [u8; 16] = blended(simd, &rows, whole, &factors).into();
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// Sixteen bytes of the rows' weighed sum.
#[inline(always)]
fn blended<S: Simd, const PAIRS: usize>(
    simd: S,
    rows: &[&[[u8; 16]]; MOST],
    at: usize,
    factors: &[i16x16<S>; PAIRS],
) -> u8x16<S> {
    let half = i32x8::splat(simd, HALF);
    let (mut low, mut high) = (half, half);
    for pair in 0..PAIRS {
        let first = u8x16::from_slice(simd, &rows[pair * 2][at]);
        let second = u8x16::from_slice(simd, &rows[pair * 2 + 1][at]);
        let (first, second) = simd.interleave_u8x16(first, second);
        low += simd.pairwise_dot_product_i16x16(widen(simd, first), factors[pair]);
        high += simd.pairwise_dot_product_i16x16(widen(simd, second), factors[pair]);
    }
    narrow(simd, low, high)
}

/// Rounds what the shift drops.
const HALF: i32 = 1 << (BITS - 1);

#[inline(always)]
fn widen<S: Simd>(simd: S, bytes: u8x16<S>) -> i16x16<S> {
    let (low, high) = simd.widen_u8x16(bytes);
    simd.combine_u16x8(low, high).bitcast()
}

/// Sums of weighed bytes to bytes. Weights are 1 together: none is out of range.
#[inline(always)]
fn narrow<S: Simd>(simd: S, low: i32x8<S>, high: i32x8<S>) -> u8x16<S> {
    let all = simd.relaxed_narrow_i32x8(low >> BITS, high >> BITS);
    let (low, high) = simd.split_u16x16(all.bitcast());
    simd.relaxed_narrow_u16x8(low, high)
}

#[cfg(test)]
mod tests;
