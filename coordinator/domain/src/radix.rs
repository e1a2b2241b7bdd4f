//! A stable radix sort by a 32-bit key: three passes of 11 + 11 + 10 bits from the low digit up, less those in which all
//! keys have one digit (bfloat16 scores have no low one).

/// What is sorted by a key.
pub(crate) trait Keyed: Copy + Ord {
    /// The key; equal ones stay in the order they had.
    fn key(self) -> u32;
}

impl Keyed for u32 {
    #[inline(always)]
    fn key(self) -> u32 {
        self
    }
}

/// The upper half is the key. The lower halves of equal keys must come in ascending order.
impl Keyed for u64 {
    #[inline(always)]
    fn key(self) -> u32 {
        (self >> 32) as u32
    }
}

const DIGIT: usize = 1 << 11;

/// Below this the counting costs more than the sorting.
const FEW: usize = 1024;

/// The `items` in ascending order, in one of the two slices, which are of one length.
pub(crate) fn sorted<'a, T: Keyed>(mut items: &'a mut [T], mut spare: &'a mut [T]) -> &'a mut [T] {
    if items.len() < FEW {
        items.sort_unstable();
        return items;
    }
    let mut counts = [[0u32; DIGIT]; 3];
    for item in items.iter() {
        let key = item.key();
        let digits = [digit::<0>(key), digit::<1>(key), digit::<2>(key)];
        for (count, digit) in counts.iter_mut().zip(digits) {
            count[digit] = count[digit].wrapping_add(1);
        }
    }
    let [low, middle, high] = &mut counts;
    if scatter::<0, T>(items, spare, low) {
        std::mem::swap(&mut items, &mut spare);
    }
    if scatter::<1, T>(items, spare, middle) {
        std::mem::swap(&mut items, &mut spare);
    }
    if scatter::<2, T>(items, spare, high) {
        std::mem::swap(&mut items, &mut spare);
    }
    items
}

/// One pass: puts `from` into `to` by digit `PASS`, equal digits in the order they had. `false`, and nothing done, if all
/// have one digit.
fn scatter<const PASS: usize, T: Keyed>(
    from: &[T],
    to: &mut [T],
    counts: &mut [u32; DIGIT],
) -> bool {
    let first = from.first().map_or(0, |item| digit::<PASS>(item.key()));
    if counts[first] as usize == from.len() {
        return false;
    }
    let mut offset = 0u32;
    for slot in counts.iter_mut() {
        offset = offset.wrapping_add(std::mem::replace(slot, offset));
    }
    for &item in from {
        let slot = &mut counts[digit::<PASS>(item.key())];
        to[*slot as usize] = item;
        *slot = slot.wrapping_add(1);
    }
    true
}

#[inline(always)]
fn digit<const PASS: usize>(key: u32) -> usize {
    (key >> (11 * PASS)) as usize & (DIGIT - 1)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_sorts_as_the_standard_library_does(
            keys in vec(any::<u32>(), 0..3000),
            mask in prop::sample::select(vec![u32::MAX, 0xFFFF_0000, 0x7FF, 0x003F_F800, 0]),
        ) {
            let mut keys: Vec<u32> = keys.into_iter().map(|key| key & mask).collect();
            let mut pairs: Vec<u64> =
                (0u64..).zip(&keys).map(|(at, key)| u64::from(*key) << 32 | at).collect();
            let (mut expected, mut expected_pairs) = (keys.clone(), pairs.clone());
            expected.sort_unstable();
            expected_pairs.sort_unstable();

            let mut spare = vec![0; keys.len()];
            prop_assert_eq!(sorted(&mut keys, &mut spare), &expected);
            let mut spare = vec![0; pairs.len()];
            prop_assert_eq!(sorted(&mut pairs, &mut spare), &expected_pairs);
        }
    }
}
