//! The inverse transform of a block: the accurate integer one of libjpeg (Loeffler, Ligtenberg and Moschytz 1989, as in
//! its `jidctint.c`), so that pixels are those that Pillow and torchvision get, bit for bit.

use fearless_simd::{Bytes, Simd, SimdBase, i16x8, i16x16, i32x8, u8x16};

/// Fraction bits of the constants.
const CONST_BITS: u32 = 13;
/// Fraction bits that the first pass leaves.
const PASS1_BITS: u32 = 2;

/// Transforms `block` (rows), each coefficient times its factor, to 8 rows of 8 samples in `out`, `stride` apart.
#[inline(always)]
pub(super) fn idct<S: Simd>(
    simd: S,
    block: &[i16; 64],
    factors: &[i16; 64],
    out: &mut [u8],
    stride: usize,
) {
    let (rows, _) = block.as_chunks::<16>();
    let (factors, _) = factors.as_chunks::<16>();
    let pair = |index: usize| {
        let factors = i16x16::from_slice(simd, &factors[index]);
        simd.widen_i16x16(i16x16::from_slice(simd, &rows[index]) * factors)
    };
    let ((r0, r1), (r2, r3), (r4, r5), (r6, r7)) = (pair(0), pair(1), pair(2), pair(3));
    let columns = pass::<S, { CONST_BITS - PASS1_BITS }>([r0, r1, r2, r3, r4, r5, r6, r7]);
    let [c0, c1, c2, c3, c4, c5, c6, c7] = transpose(simd, narrow(simd, columns));
    let widen = |a, b| simd.widen_i16x16(simd.combine_i16x8(a, b));
    let ((w0, w1), (w2, w3), (w4, w5), (w6, w7)) =
        (widen(c0, c1), widen(c2, c3), widen(c4, c5), widen(c6, c7));
    let columns = pass::<S, { CONST_BITS + PASS1_BITS + 3 }>([w0, w1, w2, w3, w4, w5, w6, w7]);
    let [s0, s1, s2, s3, s4, s5, s6, s7] = transpose(simd, narrow(simd, columns));
    let sign = u8x16::splat(simd, 0x80);
    let bytes = |a, b| -> [u8; 16] {
        // Limited to -128..=127, then shifted to 0..=255.
        (simd.saturating_narrow_i16x8(a, b).to_bytes() ^ sign).into()
    };
    let pairs = [bytes(s0, s1), bytes(s2, s3), bytes(s4, s5), bytes(s6, s7)];
    let out = &mut out[..7 * stride + 8];
    for (index, pair) in pairs.iter().enumerate() {
        let at = 2 * index * stride;
        out[at..at + 8].copy_from_slice(&pair[..8]);
        out[at + stride..at + stride + 8].copy_from_slice(&pair[8..]);
    }
}

/// The samples of a block whose only coefficient is the first.
#[inline(always)]
pub(super) fn flat(dc: i16, out: &mut [u8], stride: usize) {
    let value =
        (((i32::from(dc) << PASS1_BITS) + (1 << (PASS1_BITS + 2))) >> (PASS1_BITS + 3)) + 128;
    let row = [value.clamp(0, 255) as u8; 8];
    for out in out.chunks_mut(stride).take(8) {
        out[..8].copy_from_slice(&row);
    }
}

/// Eight one-dimensional transforms at once, one in each lane; the results lose `SHIFT` bits.
#[inline(always)]
fn pass<S: Simd, const SHIFT: u32>(v: [i32x8<S>; 8]) -> [i32x8<S>; 8] {
    let [v0, v1, v2, v3, v4, v5, v6, v7] = v;
    let z1 = (v2 + v6) * 4433;
    let even2 = z1 - v6 * 15137;
    let even3 = z1 + v2 * 6270;
    // Half of what the shift drops: it rounds.
    let half = 1 << (SHIFT - 1);
    let even0 = ((v0 + v4) << CONST_BITS) + half;
    let even1 = ((v0 - v4) << CONST_BITS) + half;
    let (t10, t13) = (even0 + even3, even0 - even3);
    let (t11, t12) = (even1 + even2, even1 - even2);

    let (z1, z2, z3, z4) = (v7 + v1, v5 + v3, v7 + v3, v5 + v1);
    let z5 = (z3 + z4) * 9633;
    let (z1, z2) = (z1 * -7373, z2 * -20995);
    let (z3, z4) = (z3 * -16069 + z5, z4 * -3196 + z5);
    let t0 = v7 * 2446 + (z1 + z3);
    let t1 = v5 * 16819 + (z2 + z4);
    let t2 = v3 * 25172 + (z2 + z3);
    let t3 = v1 * 12299 + (z1 + z4);
    [
        (t10 + t3) >> SHIFT,
        (t11 + t2) >> SHIFT,
        (t12 + t1) >> SHIFT,
        (t13 + t0) >> SHIFT,
        (t13 - t0) >> SHIFT,
        (t12 - t1) >> SHIFT,
        (t11 - t2) >> SHIFT,
        (t10 - t3) >> SHIFT,
    ]
}

#[inline(always)]
fn narrow<S: Simd>(simd: S, v: [i32x8<S>; 8]) -> [i16x8<S>; 8] {
    let pair = |a, b| simd.split_i16x16(simd.saturating_narrow_i32x8(a, b));
    let ((n0, n1), (n2, n3)) = (pair(v[0], v[1]), pair(v[2], v[3]));
    let ((n4, n5), (n6, n7)) = (pair(v[4], v[5]), pair(v[6], v[7]));
    [n0, n1, n2, n3, n4, n5, n6, n7]
}

/// Rows become columns: three perfect shuffles.
#[inline(always)]
fn transpose<S: Simd>(simd: S, mut v: [i16x8<S>; 8]) -> [i16x8<S>; 8] {
    for _ in 0..3 {
        let (a, b) = simd.interleave_i16x8(v[0], v[4]);
        let (c, d) = simd.interleave_i16x8(v[1], v[5]);
        let (e, f) = simd.interleave_i16x8(v[2], v[6]);
        let (g, h) = simd.interleave_i16x8(v[3], v[7]);
        v = [a, b, c, d, e, f, g, h];
    }
    v
}
