//! Rows of samples to rows of RGB, as libjpeg does it, bit for bit: chroma that is stored for two samples is interpolated
//! (its "fancy upsampling", `jdsample.c`), colours are converted with 16 fraction bits (`jdcolor.c`).

use crate::rgb;
use fearless_simd::{Bytes, Simd, SimdBase, i16x16, u8x16};

/// Three equal channels.
#[inline(always)]
pub(super) fn gray_row(luma: &[u8], out: &mut [u8]) {
    let (out, _) = out.as_chunks_mut::<3>();
    for (pixel, &value) in out.iter_mut().zip(luma) {
        *pixel = [value; 3];
    }
}

/// YCbCr to RGB; all rows have the same number of samples, `out` three times as many bytes.
#[inline(always)]
pub(super) fn rgb_row<S: Simd>(simd: S, luma: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]) {
    let (lumas, luma_rest) = luma.as_chunks::<16>();
    let (cbs, cb_rest) = cb.as_chunks::<16>();
    let (crs, cr_rest) = cr.as_chunks::<16>();
    let (outs, out_rest) = out.as_chunks_mut::<48>();
    for (((luma, cb), cr), out) in lumas.iter().zip(cbs).zip(crs).zip(outs) {
        sixteen(simd, luma, cb, cr, out);
    }
    let rest = luma_rest.len();
    if rest > 0 {
        let padded = |samples: &[u8]| {
            let mut all = [0; 16];
            all[..rest].copy_from_slice(&samples[..rest]);
            all
        };
        let mut pixels = [0; 48];
        let (luma, cb, cr) = (padded(luma_rest), padded(cb_rest), padded(cr_rest));
        sixteen(simd, &luma, &cb, &cr, &mut pixels);
        out_rest[..rest * 3].copy_from_slice(&pixels[..rest * 3]);
    }
}

#[inline(always)]
fn sixteen<S: Simd>(simd: S, luma: &[u8; 16], cb: &[u8; 16], cr: &[u8; 16], out: &mut [u8; 48]) {
    let wide = |samples: u8x16<S>| -> i16x16<S> {
        let (low, high) = simd.widen_u8x16(samples);
        let all: i16x16<S> = simd.combine_u16x8(low, high).bitcast();
        all - 128
    };
    let (cb, cr) = (u8x16::from_slice(simd, cb), u8x16::from_slice(simd, cr));
    // Cb, Cr, Cb, Cr, …: of eight pixels each.
    let (first, second) = simd.interleave_u8x16(cb, cr);
    let (first, second) = (wide(first), wide(second));
    let product = |factors: &[i16; 16]| -> i16x16<S> {
        let factors = i16x16::from_slice(simd, factors);
        let half = |pairs| (simd.pairwise_dot_product_i16x16(pairs, factors) + (1 << 15)) >> 16;
        simd.saturating_narrow_i32x8(half(first), half(second))
    };
    let (luma, cb, cr) = (wide(u8x16::from_slice(simd, luma)), wide(cb), wide(cr));
    let red = luma + cr + product(&RED);
    let green = luma - cr + product(&GREEN);
    let blue = luma + cb + cb + product(&BLUE);
    let sign = u8x16::splat(simd, 0x80);
    let limited = |channel: i16x16<S>| {
        let (low, high) = simd.split_i16x16(channel);
        simd.saturating_narrow_i16x8(low, high).to_bytes() ^ sign
    };
    rgb::join(simd, [limited(red), limited(green), limited(blue)], out);
}

/// Factors of Cb and Cr in 1/65536, less what is whole: 1.402 is 1 and 26345, 0.71414 is 1 less 18734, 1.772 is 2 less
/// 14942.
const RED: [i16; 16] = pairs(0, 26345);
const GREEN: [i16; 16] = pairs(-22554, 18734);
const BLUE: [i16; 16] = pairs(-14942, 0);

const fn pairs(cb: i16, cr: i16) -> [i16; 16] {
    [
        cb, cr, cb, cr, cb, cr, cb, cr, cb, cr, cb, cr, cb, cr, cb, cr,
    ]
}

/// Twice as many samples as `near`, from those of the row alone; the component is `width` samples wide.
///
/// The first and the last sample are taken for the picture's edges; where they are not, nobody looks at them.
#[inline(always)]
pub(super) fn wider(near: &[u8], width: usize, out: &mut [u8]) {
    let (out, _) = out.as_chunks_mut::<2>();
    if width <= 2 {
        // As libjpeg: nothing to interpolate.
        out.iter_mut()
            .zip(near)
            .for_each(|(pair, &s)| *pair = [s; 2]);
        return;
    }
    let last = near.len() - 1;
    let count = near.len();
    let inner = near.windows(3).zip(&mut out[1..count.max(2) - 1]);
    for (samples, pair) in inner {
        let &[before, this, after] = samples else {
            continue;
        };
        let this = 3 * u16::from(this);
        *pair = [
            ((this + u16::from(before) + 1) >> 2) as u8,
            ((this + u16::from(after) + 2) >> 2) as u8,
        ];
    }
    // At the edges the sample itself.
    let after = |at: usize| u16::from(near[(at + 1).min(last)]);
    let before = |at: usize| u16::from(near[at.saturating_sub(1)]);
    let this = |at: usize| 3 * u16::from(near[at]);
    out[0] = [near[0], ((this(0) + after(0) + 2) >> 2) as u8];
    out[last] = match last {
        0 => [near[0]; 2],
        _ => [((this(last) + before(last) + 1) >> 2) as u8, near[last]],
    };
}

/// As many samples as `near`, between it and the row above (`above`) or below it.
#[inline(always)]
pub(super) fn taller(near: &[u8], far: &[u8], above: bool, out: &mut [u8]) {
    let bias = if above { 1 } else { 2 };
    for ((out, &near), &far) in out.iter_mut().zip(near).zip(far) {
        *out = ((3 * u16::from(near) + u16::from(far) + bias) >> 2) as u8;
    }
}

/// Twice as many samples as `near`, between it and the row `far`; `sums` is memory for as many.
#[inline(always)]
pub(super) fn wider_and_taller(
    near: &[u8],
    far: &[u8],
    width: usize,
    sums: &mut [u16],
    out: &mut [u8],
) {
    let (out, _) = out.as_chunks_mut::<2>();
    if width <= 2 {
        out.iter_mut()
            .zip(near)
            .for_each(|(pair, &s)| *pair = [s; 2]);
        return;
    }
    for ((sum, &near), &far) in sums.iter_mut().zip(near).zip(far) {
        *sum = 3 * u16::from(near) + u16::from(far);
    }
    let count = near.len();
    let last = count - 1;
    let sums = &sums[..count];
    for (three, pair) in sums.windows(3).zip(&mut out[1..count.max(2) - 1]) {
        let &[before, this, after] = three else {
            continue;
        };
        let this = 3 * this;
        *pair = [
            ((this + before + 8) >> 4) as u8,
            ((this + after + 7) >> 4) as u8,
        ];
    }
    let after = sums[1.min(last)];
    let before = sums[last.saturating_sub(1)];
    out[0] = [
        ((sums[0] * 4 + 8) >> 4) as u8,
        ((sums[0] * 3 + after + 7) >> 4) as u8,
    ];
    let right = ((sums[last] * 4 + 7) >> 4) as u8;
    out[last] = match last {
        0 => [out[0][0], right],
        _ => [((sums[last] * 3 + before + 8) >> 4) as u8, right],
    };
}
