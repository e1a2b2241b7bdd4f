//! The index's wire form: exact for what is right, harmless for what is hostile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use data::coco::{IndexError, Sample, Split, Warning};
use proptest::prelude::*;

prop_compose! {
    fn splits()(
        num_classes in 1_usize..400,
        samples in prop::collection::vec(
            (any::<u64>(), ".{0,40}", prop::collection::btree_set(any::<u16>(), 0..6)), 0..40),
        name in "train|val", file in "/[a-z/]{0,20}", unlabelled in any::<u64>(), dropped in 0_u64..9,
        warnings in prop::collection::vec((".{0,20}", any::<u64>()), 0..3),
    ) -> Split {
        let samples = samples.into_iter().map(|(image_id, file_name, labels)| {
            let mut labels: Vec<u16> = labels.into_iter().map(|l| l % num_classes as u16).collect();
            labels.sort_unstable();
            labels.dedup();
            Sample { image_id, file_name, labels: labels.into() }
        }).collect();
        let warnings = warnings.into_iter().map(|(text, count)| Warning { text, count }).collect();
        Split { name, annotation_file: file.clone().into(), image_dir: file.into(), num_classes, samples, unlabelled, dropped, warnings }
    }
}

proptest! {
    #[test]
    fn what_was_encoded_comes_back(split in splits()) {
        prop_assert_eq!(Split::decode(&split.encode()).unwrap(), split);
    }

    #[test]
    fn a_cut_index_is_an_error(split in splits(), share in 0.0..1.0) {
        let bytes = split.encode();
        let cut = (bytes.len() as f64 * share) as usize;
        prop_assert!(Split::decode(&bytes[..cut]).is_err());
    }

    #[test]
    fn changed_bytes_never_panic_and_what_they_give_is_consistent(
        split in splits(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        let mut bytes = split.encode();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(split) = Split::decode(&bytes) {
            for sample in &split.samples {
                prop_assert!(sample.labels.is_sorted_by(|a, b| a < b));
                prop_assert!(sample.labels.iter().all(|&l| usize::from(l) < split.num_classes));
            }
            // No more memory than a small multiple of what came in.
            let names: usize = split.samples.iter().map(|s| s.file_name.len() + 2 * s.labels.len()).sum();
            prop_assert!(names <= 2 * bytes.len());
        }
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut index = b"HGIX\x01".to_vec();
        index.extend_from_slice(&bytes);
        let _ = Split::decode(&index);
        prop_assert!(Split::decode(&bytes).is_err() || bytes.starts_with(b"HGIX"));
    }
}

#[test]
fn a_claim_of_four_billion_samples_allocates_nothing() {
    // name, two paths, classes, unlabelled, dropped, warnings, then the number of samples
    let mut bytes = b"HGIX\x01\0\0\0\x05\0\0\0".to_vec();
    bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(matches!(
        Split::decode(&bytes),
        Err(IndexError::Length {
            what: "samples",
            ..
        })
    ));
}

#[test]
fn another_version_says_so() {
    assert_eq!(
        Split::decode(b"HGIX\x02"),
        Err(IndexError::Version { found: 2 })
    );
    assert_eq!(Split::decode(b"PNG"), Err(IndexError::Magic));
}
