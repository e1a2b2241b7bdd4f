//! Random streams of the drawn scenes: the same numbers on every machine, in every version of every library.

/// What a stream is for. Each use has its own numbers, so training and validation never draw from the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Domain {
    /// Which class leads which training picture.
    TrainOrder,
    /// The contents of one training picture.
    TrainPicture,
    /// Which class leads which validation picture.
    ValOrder,
    /// The contents of one validation picture.
    ValPicture,
    /// A part of a set of full size; the second field tells the splits apart.
    FullSize(FullSizePart, bool),
}

/// What a stream of a set of full size is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FullSizePart {
    /// Ids of the pictures of both splits.
    Ids,
    /// Which pictures show nothing, and the order of the annotations.
    Order,
    /// What one picture shows.
    Labels,
    /// What its entry says beside that.
    Entry,
    /// One annotation.
    Outline,
    /// The pixels of one of the few pictures.
    Pixels,
}

impl Domain {
    /// Arbitrary constants, far apart in every bit.
    fn salt(self) -> u64 {
        match self {
            Domain::TrainOrder => 0x5be0_cd19_137e_2179,
            Domain::TrainPicture => 0x1f83_d9ab_fb41_bd6b,
            Domain::ValOrder => 0x9b05_688c_2b3e_6c1f,
            Domain::ValPicture => 0xa54f_f53a_5f1d_36f1,
            Domain::FullSize(part, val) => {
                mix(0x510e_527f_ade6_82d1 ^ (2 * part as u64 + u64::from(val)))
            }
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014). Written out here because
/// a picture must not change when a library changes its generator.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    state: u64,
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Stream {
    /// The stream number `index` of `domain` under `seed`.
    pub(super) fn new(seed: u64, domain: Domain, index: u64) -> Self {
        let root = mix(mix(seed.wrapping_add(GOLDEN)) ^ domain.salt());
        Stream {
            state: mix(root ^ mix(index.wrapping_add(GOLDEN))),
        }
    }

    /// A stream of its own for a part of the same picture, so that a change to one part leaves the others as they were.
    pub(super) fn fork(&mut self) -> Self {
        Stream {
            state: mix(self.next()),
        }
    }

    /// 64 random bits.
    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Uniform in [0, 1), in steps of 2⁻²⁴ so that the conversion is exact.
    pub(super) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in [low, high).
    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in 0..n; n must not be 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// True with probability `p`.
    pub(super) fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// One of the items, which must not be empty.
    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// An index drawn in proportion to `weights`.
    pub(super) fn weighted(&mut self, weights: &[u32]) -> usize {
        let total: u32 = weights.iter().sum();
        let mut rest = self.below(total as usize) as u32;
        for (i, &weight) in weights.iter().enumerate() {
            if rest < weight {
                return i;
            }
            rest -= weight;
        }
        weights.len() - 1
    }

    /// Fisher and Yates' shuffle.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_numbers_are_splitmix64s() {
        // given the published generator's state 0
        let mut stream = Stream { state: 0 };
        // then its published first outputs follow
        assert_eq!(stream.next(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(stream.next(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn training_and_validation_streams_never_meet_in_a_full_set() {
        // given the first numbers of every picture's stream in both splits
        let first = |domain| (0..200_000u64).map(move |i| Stream::new(7, domain, i).next());
        let mut seen: Vec<u64> = first(Domain::TrainPicture)
            .chain(first(Domain::ValPicture))
            .collect();
        // then no two are alike
        let n = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), n);
    }
}
