//! Probabilities `sigmoid(logit)` in float64: one, and sums over many.

use fearless_simd::{Level, Simd, dispatch};

use crate::columns::{rank_key, score_of};

/// `sigmoid(logit)` in float64.
pub(crate) fn probability(logit: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(logit)).exp())
}

/// Sums over some probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Sums {
    /// `Σ p`.
    pub(crate) probabilities: f64,
    /// `Σ p²`.
    pub(crate) squares: f64,
}

/// The sums over the scores of these keys ([`crate::columns::rank_key`]). The same on every machine: the order of the
/// additions is fixed, and nothing is fused.
pub(crate) fn sums(keys: &[u32]) -> Sums {
    dispatch!(Level::new(), simd => vectorized(simd, keys))
}

/// Summed apart, so that no addition waits for the one before.
const LANES: usize = 16;

#[inline(always)]
fn vectorized<S: Simd>(simd: S, keys: &[u32]) -> Sums {
    simd.vectorize(
        #[inline(always)]
        || {
            let (whole, rest) = keys.as_chunks::<LANES>();
            let (mut probabilities, mut squares) = ([0.0; LANES], [0.0; LANES]);
            let mut last = [rank_key(f32::NEG_INFINITY); LANES];
            last[..rest.len()].copy_from_slice(rest);
            // What is not there has probability 0.
            for keys in whole.iter().chain(std::iter::once(&last)) {
                for lane in 0..LANES {
                    let p = of_one(score_of(keys[lane]));
                    probabilities[lane] += p;
                    squares[lane] += p * p;
                }
            }
            Sums {
                probabilities: probabilities.iter().sum(),
                squares: squares.iter().sum(),
            }
        },
    )
}

/// `sigmoid(logit)` without a branch or a call, within 3 units in the last place of [`probability`].
///
/// `exp(-|x|) = 2ⁿ exp(r)` with `|r| ≤ ln 2 / 2`, the latter by its Taylor series (W. J. Cody, W. Waite, "Software Manual
/// for the Elementary Functions", 1980).
#[inline(always)]
fn of_one(logit: f32) -> f64 {
    /// Adding this leaves the nearest integer in the lowest bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const LN_2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
    /// `1 / k!` from 12 down to 0: the next is below a unit in the last place.
    const SERIES: [f64; 13] = [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    /// Beyond it `exp(-x)` is no normal number.
    const FARTHEST: f64 = 708.0;

    let away = f64::from(logit.abs());
    let x = if away < FARTHEST { -away } else { -FARTHEST };
    let rounded = x * std::f64::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN_2[0] - n * LN_2[1];
    let mut series = SERIES[0];
    for term in &SERIES[1..] {
        series = series * r + term;
    }
    let power = f64::from_bits(rounded.to_bits().wrapping_add(1023) << 52);
    let exp = if away > FARTHEST { 0.0 } else { series * power };
    let upper = if logit >= 0.0 { 1.0 } else { exp };
    upper / (1.0 + exp)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(found: f64, expected: f64) -> bool {
        (found - expected).abs() <= 3.0 * f64::EPSILON * expected
    }

    proptest! {
        #[test]
        fn the_fast_one_is_the_other_one(logit in -700f32..700.0) {
            let (found, expected) = (of_one(logit), probability(logit));
            prop_assert!(near(found, expected), "{logit}: {found:e}, not {expected:e}");
        }
    }

    #[test]
    fn far_scores_are_certain() {
        for (logit, expected) in [
            (f32::INFINITY, 1.0),
            (f32::NEG_INFINITY, 0.0),
            (800.0, 1.0),
            (-800.0, 0.0),
            (f32::MIN, 0.0),
            (0.0, 0.5),
            (-0.0, 0.5),
        ] {
            assert_eq!(of_one(logit), expected, "{logit}");
        }
    }

    #[test]
    fn sums_count_every_score_once_whatever_their_number() {
        for number in [0u8, 1, 15, 16, 17, 100] {
            let logits: Vec<f32> = (0..number).map(|n| f32::from(n) / 7.0 - 3.0).collect();
            let keys: Vec<u32> = logits.iter().map(|logit| rank_key(*logit)).collect();
            let found = sums(&keys);
            let p = || logits.iter().map(|logit| probability(*logit));
            let expected = p().sum::<f64>();
            assert!((found.probabilities - expected).abs() < 1e-13);
            let expected = p().map(|p| p * p).sum::<f64>();
            assert!((found.squares - expected).abs() < 1e-13);
        }
    }
}
