//! RGB bytes to planes of one channel each and back, sixteen pixels at a time.

use fearless_simd::{Simd, SimdBase, u8x16};

/// A value of each channel for sixteen pixels.
pub(crate) type Channels<S> = [u8x16<S>; 3];

/// Sixteen pixels, channel beside channel.
#[inline(always)]
pub(crate) fn join<S: Simd>(simd: S, channels: Channels<S>, out: &mut [u8; 48]) {
    let (thirds, _) = out.as_chunks_mut::<16>();
    for (third, places) in thirds.iter_mut().zip(&JOIN) {
        *third = shuffle(simd, channels, places).into();
    }
}

/// Sixteen pixels' channels.
#[inline(always)]
pub(crate) fn split<S: Simd>(simd: S, pixels: &[u8; 48]) -> Channels<S> {
    let (thirds, _) = pixels.as_chunks::<16>();
    let third = |index: usize| u8x16::from_slice(simd, &thirds[index]);
    let thirds = [third(0), third(1), third(2)];
    [
        shuffle(simd, thirds, &SPLIT[0]),
        shuffle(simd, thirds, &SPLIT[1]),
        shuffle(simd, thirds, &SPLIT[2]),
    ]
}

/// Every byte from that source in which its place is not out of range.
#[inline(always)]
fn shuffle<S: Simd>(simd: S, [a, b, c]: [u8x16<S>; 3], places: &[[u8; 16]; 3]) -> u8x16<S> {
    let places = [
        u8x16::from_slice(simd, &places[0]),
        u8x16::from_slice(simd, &places[1]),
        u8x16::from_slice(simd, &places[2]),
    ];
    simd.swizzle_dyn_precise_u8x16(a, places[0])
        | simd.swizzle_dyn_precise_u8x16(b, places[1])
        | simd.swizzle_dyn_precise_u8x16(c, places[2])
}

/// Which pixel's value each byte of RGB is, by third of 48 bytes and by channel; out of range where it is another's.
const JOIN: [[[u8; 16]; 3]; 3] = {
    let mut places = [[[0xff; 16]; 3]; 3];
    let mut at = 0;
    while at < 48 {
        places[at / 16][at % 3][at % 16] = (at / 3) as u8;
        at += 1;
    }
    places
};

/// Which byte of RGB each pixel's value is, by channel and by third of 48 bytes; out of range where it is in another.
const SPLIT: [[[u8; 16]; 3]; 3] = {
    let mut places = [[[0xff; 16]; 3]; 3];
    let mut at = 0;
    while at < 48 {
        places[at % 3][at / 16][at / 3] = (at % 16) as u8;
        at += 1;
    }
    places
};
