//! The order in which an epoch visits the training split: a pure function of (seed, epoch, n).
//!
//! The algorithm is part of the run's meaning (a resumed run and a peer that trains on the same
//! order depend on it), so it is written out here and pinned by a golden test; it never changes.
//! With all arithmetic modulo 2⁶⁴, G = 0x9E3779B97F4A7C15 and
//!
//! ```text
//! mix(z): z ^= z >> 30; z *= 0xBF58476D1CE4E5B9; z ^= z >> 27; z *= 0x94D049BB133111EB; z ^ (z >> 31)
//! key     = mix(mix(seed + G) + (epoch + 1)·G)
//! word(k) = mix(key + (k + 1)·G)
//! order   = [0, 1, …, n − 1]
//! for i = n − 1 down to 1, k = 0, 1, …:  swap order[i] with order[(word(k)·(i + 1)) >> 64]
//! ```
//!
//! `mix` and `word` are SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
//! generators, OOPSLA 2014); the loop is Fisher–Yates (Durstenfeld 1964). Taking the high half of
//! a product instead of rejecting biases a position by less than 2⁻³², and keeps the whole thing
//! ten lines in any language.

pub(crate) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The permutation of `0..samples` that epoch `epoch` (from 0) of a run with `seed` follows.
///
/// The world size is not an argument: which rank trains on a sample never moves it.
#[must_use]
pub fn permutation(seed: u64, epoch: u32, samples: u32) -> Vec<u32> {
    let key =
        mix(mix(seed.wrapping_add(GOLDEN))
            .wrapping_add((u64::from(epoch) + 1).wrapping_mul(GOLDEN)));
    let mut order: Vec<u32> = (0..samples).collect();
    let mut state = key;
    for last in (1..order.len()).rev() {
        state = state.wrapping_add(GOLDEN);
        let bound = last as u64 + 1;
        let pick = (u128::from(mix(state)) * u128::from(bound)) >> 64;
        order.swap(last, pick as usize);
    }
    order
}

/// SplitMix64's finalizer: a bijection of 64-bit words whose every output bit depends on every
/// input bit.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn splitmix64_gives_its_published_first_words() {
        // The reference implementation's first outputs for the seed 1234567.
        let words: Vec<u64> = (1..=3u64)
            .map(|k| mix(1_234_567u64.wrapping_add(k.wrapping_mul(GOLDEN))))
            .collect();
        assert_eq!(
            words,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn an_order_drawn_today_is_drawn_for_ever() {
        // Computed by an independent Python version of the text at the top of this file.
        assert_eq!(permutation(0, 0, 10), GOLDEN_0_0_10);
        assert_eq!(permutation(17, 3, 10), GOLDEN_17_3_10);
        assert_eq!(permutation(u64::MAX, 2, 5), GOLDEN_MAX_2_5);
    }

    const GOLDEN_0_0_10: [u32; 10] = [4, 7, 0, 5, 9, 3, 6, 2, 8, 1];
    const GOLDEN_17_3_10: [u32; 10] = [5, 1, 9, 0, 3, 7, 6, 8, 2, 4];
    const GOLDEN_MAX_2_5: [u32; 5] = [1, 0, 2, 3, 4];

    #[test]
    fn splits_of_none_and_one_have_their_only_order() {
        assert_eq!(permutation(1, 1, 0), Vec::<u32>::new());
        assert_eq!(permutation(1, 1, 1), [0]);
    }

    #[test]
    fn every_position_is_as_likely_as_any_other() {
        // Given 6,000 epochs of five samples, sample 0 stands 1,200 times at each place, give or
        // take five standard deviations (31 each).
        let mut at = [0i32; 5];
        for epoch in 0..6000 {
            let order = permutation(9, epoch, 5);
            at[order.iter().position(|&sample| sample == 0).unwrap()] += 1;
        }
        assert!(at.iter().all(|count| (count - 1200).abs() < 155), "{at:?}");
    }

    proptest! {
        #[test]
        fn every_sample_comes_exactly_once(seed: u64, epoch: u32, samples in 0u32..3000) {
            let mut order = permutation(seed, epoch, samples);
            order.sort_unstable();
            prop_assert!(order.into_iter().eq(0..samples));
        }

        #[test]
        fn epochs_and_seeds_have_orders_of_their_own(seed: u64, epoch in 0u32..1000) {
            let here = permutation(seed, epoch, 600);
            prop_assert_eq!(&here, &permutation(seed, epoch, 600));
            prop_assert_ne!(&here, &permutation(seed, epoch + 1, 600));
            prop_assert_ne!(&here, &permutation(seed.wrapping_add(1), epoch, 600));
        }
    }
}
