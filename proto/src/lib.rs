//! The wire contract of the system: messages and services of package `hgat.v1`, generated from `hgat/v1/*.proto`.
//!
//! This crate must not know what any message means: no conversions, no defaults, no logic.

#![allow(
    missing_docs,
    reason = "documented in the .proto files, which prost copies"
)]

/// Package `hgat.v1`: `RunService` for people, `WorkerService` and `StoreService` for workers.
#[allow(clippy::all, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("hgat.v1");

    /// The compiled descriptors of the package, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hgat.v1.bin"));
}

/// The largest message either side sends or accepts, in bytes. Everything bigger is cut into chunks, so that
/// unconfigured gRPC clients (4 MiB) can read every answer.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Bytes of payload in one chunk of a streaming RPC: half the limit, which leaves room for the other fields.
pub const CHUNK_BYTES: usize = MAX_MESSAGE_BYTES / 2;

impl v1::Holders {
    /// These ranks, ascending.
    #[must_use]
    pub fn of(ranks: &[u32]) -> Self {
        let follows = |a: &u32, b: &u32| a.checked_add(1) == Some(*b);
        let ranges = ranks
            .chunk_by(follows)
            .filter_map(|run| {
                let (first, last) = (*run.first()?, *run.last()?);
                Some(v1::RankRange { first, last })
            })
            .collect();
        Self { ranges }
    }

    /// The ranks, as far as they are ranks of a world of this size.
    pub fn ranks(&self, world_size: u32) -> impl Iterator<Item = u32> {
        self.ranges
            .iter()
            .flat_map(move |range| range.first..range.last.saturating_add(1).min(world_size))
    }
}

/// The digest that messages and records carry: XXH3 with 64 bits.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// `Progress.samples_digest`: the [`digest`] of the sample ids a rank decoded and applied in a step, in its plan's order,
/// as little-endian words.
#[must_use]
pub fn samples_digest(sample_ids: impl IntoIterator<Item = u32>) -> u64 {
    let bytes: Vec<u8> = sample_ids.into_iter().flat_map(u32::to_le_bytes).collect();
    digest(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_told_as_ranges_and_are_the_same_ranks_again() {
        for ranks in [&[0, 1, 2, 3][..], &[2], &[0, 1, 5, 7, 8], &[]] {
            let again: Vec<u32> = v1::Holders::of(ranks).ranks(9).collect();
            assert_eq!(again, ranks);
        }
        let all: Vec<u32> = (0..10_000).collect();
        assert_eq!(v1::Holders::of(&all).ranges.len(), 1);
        assert_eq!(
            v1::Holders::of(&[3, 4, 5]).ranks(5).collect::<Vec<_>>(),
            [3, 4]
        );
    }
}
