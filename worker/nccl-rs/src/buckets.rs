//! Which parameters' gradients travel together: a pure function of their sizes and the config.
//!
//! The order of floating-point additions in an all-reduce depends on where a gradient lies in its
//! bucket, so two runs are bit-identical only if the layout is. Therefore nothing measured (the
//! order in which gradients became ready, say) may enter here.

/// How large the buckets of gradients are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketSizes {
    /// Bytes at which the first bucket is closed: small, so that communication starts early.
    pub first_bytes: usize,
    /// Bytes at which every further bucket is closed.
    pub cap_bytes: usize,
}

impl Default for BucketSizes {
    /// The sizes of PyTorch's DistributedDataParallel: 1 MiB, then 25 MiB.
    fn default() -> Self {
        Self {
            first_bytes: 1 << 20,
            cap_bytes: 25 << 20,
        }
    }
}

/// What the layout needs to know of one parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of its gradient.
    pub bytes: usize,
    /// What may not be mixed in one bucket, the element type for instance.
    pub class: u64,
}

/// The parameters' indices by bucket, in the order in which the buckets are reduced.
///
/// Parameters are taken in reverse, as their gradients become ready from the last layer to the
/// first. A bucket is closed by the parameter that fills it to its limit, so only its last member
/// may exceed it.
pub fn assign_buckets(parameters: &[Layout], sizes: BucketSizes) -> Vec<Vec<usize>> {
    let mut closed: Vec<Vec<usize>> = Vec::new();
    // In order of first appearance; a handful at most, so a list is enough.
    let mut open: Vec<(u64, usize, Vec<usize>)> = Vec::new();
    for (index, parameter) in parameters.iter().enumerate().rev() {
        let at = match open
            .iter()
            .position(|(class, ..)| *class == parameter.class)
        {
            Some(at) => at,
            None => {
                open.push((parameter.class, 0, Vec::new()));
                open.len() - 1
            }
        };
        let (_, bytes, members) = &mut open[at];
        members.push(index);
        *bytes = bytes.saturating_add(parameter.bytes);
        let limit = if closed.is_empty() {
            sizes.first_bytes
        } else {
            sizes.cap_bytes
        };
        if *bytes >= limit {
            *bytes = 0;
            closed.push(std::mem::take(members));
        }
    }
    closed.extend(
        open.into_iter()
            .map(|(_, _, members)| members)
            .filter(|m| !m.is_empty()),
    );
    closed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parameters_are_taken_in_reverse_and_the_first_bucket_is_small() {
        let parameters = [8, 8, 8, 8].map(|bytes| Layout { bytes, class: 0 });

        let buckets = assign_buckets(
            &parameters,
            BucketSizes {
                first_bytes: 8,
                cap_bytes: 16,
            },
        );

        assert_eq!(buckets, [vec![3], vec![2, 1], vec![0]]);
    }

    fn parameters() -> impl Strategy<Value = Vec<Layout>> {
        prop::collection::vec(
            (1usize..5_000, 0u64..3).prop_map(|(bytes, class)| Layout { bytes, class }),
            0..200,
        )
    }

    proptest! {
        #[test]
        fn every_parameter_is_in_exactly_one_bucket_of_its_class(
            parameters in parameters(), first_bytes in 1usize..4_000, cap_bytes in 1usize..20_000
        ) {
            let buckets = assign_buckets(&parameters, BucketSizes { first_bytes, cap_bytes });

            let mut seen: Vec<usize> = buckets.iter().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..parameters.len()).collect::<Vec<_>>());
            for bucket in &buckets {
                prop_assert!(!bucket.is_empty());
                prop_assert!(bucket.windows(2).all(|pair| pair[0] > pair[1]), "reverse order");
                prop_assert!(bucket.iter().all(|&i| parameters[i].class == parameters[bucket[0]].class));
            }
        }

        #[test]
        fn only_the_parameter_that_closes_a_bucket_may_exceed_its_limit(
            parameters in parameters(), first_bytes in 1usize..4_000, cap_bytes in 1usize..20_000
        ) {
            let limit = first_bytes.max(cap_bytes);
            for bucket in assign_buckets(&parameters, BucketSizes { first_bytes, cap_bytes }) {
                let before_last: usize =
                    bucket[..bucket.len() - 1].iter().map(|&i| parameters[i].bytes).sum();
                prop_assert!(before_last < limit);
            }
        }
    }
}
