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
    let (rows, _) = block.as_chunks::<8>();
    let (factors, _) = factors.as_chunks::<8>();
    let row = |index: usize| {
        let factors = i16x8::from_slice(simd, &factors[index]);
        i16x8::from_slice(simd, &rows[index]) * factors
    };
    let rows = [
        row(0),
        row(1),
        row(2),
        row(3),
        row(4),
        row(5),
        row(6),
        row(7),
    ];
    let columns = pass::<S, { CONST_BITS - PASS1_BITS }>(simd, rows);
    let columns = transpose(simd, narrow(simd, columns));
    let columns = pass::<S, { CONST_BITS + PASS1_BITS + 3 }>(simd, columns);
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
///
/// libjpeg saves multiplications by sums beforehand. Here two of them and their sum are one instruction, so every factor
/// is multiplied out: these are whole numbers, and the results the same.
#[inline(always)]
fn pass<S: Simd, const SHIFT: u32>(simd: S, v: [i16x8<S>; 8]) -> [i32x8<S>; 8] {
    let [v0, v1, v2, v3, v4, v5, v6, v7] = v;
    let pairs = |a, b| {
        let (low, high) = simd.interleave_i16x8(a, b);
        simd.combine_i16x8(low, high)
    };
    let dot = |pairs: i16x16<S>, factors: &[i16; 16]| {
        simd.pairwise_dot_product_i16x16(pairs, i16x16::from_slice(simd, factors))
    };
    // Half of what the shift drops: it rounds.
    let half = 1 << (SHIFT - 1);
    let v04 = pairs(v0, v4);
    let v26 = pairs(v2, v6);
    let even0 = dot(v04, &EVEN[0]) + half;
    let even1 = dot(v04, &EVEN[1]) + half;
    let (even2, even3) = (dot(v26, &EVEN[2]), dot(v26, &EVEN[3]));
    let (t10, t13) = (even0 + even3, even0 - even3);
    let (t11, t12) = (even1 + even2, even1 - even2);

    let (v13, v57) = (pairs(v1, v3), pairs(v5, v7));
    let odd = |[of13, of57]: &[[i16; 16]; 2]| dot(v13, of13) + dot(v57, of57);
    let (t0, t1, t2, t3) = (odd(&ODD[0]), odd(&ODD[1]), odd(&ODD[2]), odd(&ODD[3]));
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

const EVEN: [[i16; 16]; 4] = [
    alternating(1 << CONST_BITS, 1 << CONST_BITS),
    alternating(1 << CONST_BITS, -1 << CONST_BITS),
    alternating(4433, -10704),
    alternating(10703, 4433),
];

/// Factors of rows 1 and 3, and of 5 and 7.
const ODD: [[[i16; 16]; 2]; 4] = [
    [alternating(2260, -6436), alternating(9633, -11363)],
    [alternating(6437, -11362), alternating(2261, 9633)],
    [alternating(9633, -2259), alternating(-11362, -6436)],
    [alternating(11363, 9633), alternating(6437, 2260)],
];

const fn alternating(a: i16, b: i16) -> [i16; 16] {
    [a, b, a, b, a, b, a, b, a, b, a, b, a, b, a, b]
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
