use super::*;
use std::collections::BTreeSet;

fn all() -> [TrainTransform; 4] {
    [
        TrainTransform::random_resized_crop(),
        TrainTransform::multi_scale_crop(),
        TrainTransform::SquashCrop { resize: 512 },
        TrainTransform::None,
    ]
}

#[test]
fn a_placement_is_a_function_of_seed_epoch_and_sample_and_of_nothing_else() {
    for transform in &all()[..3] {
        let draw = |seed, epoch, sample| transform.draw(seed, epoch, sample, 640, 480, 448);
        let mut different = 0;
        for sample in 0..200 {
            let here = draw(1, 2, sample);
            // Asked for out of order, and again.
            let _ = draw(1, 2, 199 - sample);
            assert_eq!(draw(1, 2, sample), here);
            let others = [
                draw(2, 2, sample),
                draw(1, 3, sample),
                draw(1, 2, sample + 1),
            ];
            different += others.iter().filter(|&&other| other != here).count();
        }
        // Few placements are drawn twice by chance: there are only 26 of the largest scale.
        assert!(different > 560, "{transform:?}: {different} of 600 differ");
    }
}

#[test]
fn seed_epoch_and_sample_are_not_exchangeable() {
    let transform = TrainTransform::random_resized_crop();
    let numbers = [
        (1, 2, 3),
        (1, 3, 2),
        (2, 1, 3),
        (2, 3, 1),
        (3, 1, 2),
        (3, 2, 1),
    ];
    let drawn: BTreeSet<String> = numbers
        .iter()
        .map(|&(seed, epoch, sample)| {
            format!("{:?}", transform.draw(seed, epoch, sample, 640, 480, 448))
        })
        .collect();
    assert_eq!(drawn.len(), 6);
}

#[test]
fn crops_stay_inside_pictures_of_every_shape() {
    for transform in all() {
        for (width, height) in [
            (1, 1),
            (7, 300),
            (300, 7),
            (640, 480),
            (449, 447),
            (65_535, 1),
        ] {
            for sample in 0..500 {
                let p = transform.draw(5, 0, sample, width, height, 448);
                let (w, h) = (f64::from(width), f64::from(height));
                let inside = p.left >= 0.0
                    && p.top >= 0.0
                    && p.width > 0.0
                    && p.height > 0.0
                    && p.left + p.width <= w * (1.0 + 1e-12)
                    && p.top + p.height <= h * (1.0 + 1e-12);
                assert!(inside, "{transform:?} {width} x {height}: {p:?}");
            }
        }
    }
}

#[test]
fn half_of_the_training_pictures_are_mirrored_and_no_other() {
    for transform in all() {
        let draw = |sample| transform.draw(9, 4, sample, 640, 480, 448).flip;
        let flips = (0..10_000).filter(|&sample| draw(sample)).count();
        if transform == TrainTransform::None {
            assert_eq!(flips, 0);
        } else {
            // Five standard deviations.
            assert!(flips.abs_diff(5_000) < 250, "{transform:?}: {flips}");
        }
    }
}

#[test]
fn area_and_aspect_ratio_fill_their_ranges() {
    let transform = TrainTransform::random_resized_crop();
    let placements: Vec<Placement> = (0..4_000)
        .map(|sample| transform.draw(0, 0, sample, 1_000, 1_000, 448))
        .collect();
    let range = |of: fn(&Placement) -> f64| {
        let values = placements.iter().map(of);
        values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        })
    };
    let (low, high) = range(|p| p.width * p.height / 1e6);
    assert!(
        (0.398..0.41).contains(&low) && (0.98..=1.0).contains(&high),
        "{low} to {high}"
    );
    let (low, high) = range(|p| p.width / p.height);
    assert!(
        (0.748..0.76).contains(&low) && (1.31..1.336).contains(&high),
        "{low} to {high}"
    );
}

#[test]
fn a_multi_scale_crop_lies_at_one_of_thirteen_places_and_has_close_scales() {
    // given sides that differ from the output's, so that no scale is rounded to it
    let transform = TrainTransform::multi_scale_crop();
    let sides = [512.0, 448.0, 384.0, 337.0, 256.0];
    let mut places = BTreeSet::new();
    let mut pairs = BTreeSet::new();
    // when
    for sample in 0..5_000 {
        let p = transform.draw(3, 1, sample, 512, 512, 300);
        let index = |side: f64| sides.iter().position(|&s| s == side);
        let (Some(i), Some(j)) = (index(p.width), index(p.height)) else {
            panic!("{p:?}")
        };
        assert!(i.abs_diff(j) <= 2, "{p:?}");
        pairs.insert((i, j));
        // A side without room has no place.
        if i > 0 && j > 0 {
            let quarter = |at: f64, side: f64| (at / ((512.0 - side) / 4.0).floor()) as u32;
            places.insert((quarter(p.left, p.width), quarter(p.top, p.height)));
        }
    }
    // then
    let expected: BTreeSet<(u32, u32)> = [
        (0, 0),
        (4, 0),
        (0, 4),
        (4, 4),
        (2, 2),
        (0, 2),
        (4, 2),
        (2, 4),
        (2, 0),
        (1, 1),
        (3, 1),
        (1, 3),
        (3, 3),
    ]
    .into();
    assert_eq!(places, expected);
    assert_eq!(pairs.len(), 19, "5 + 2 * 4 + 2 * 3 pairs");
}

#[test]
fn a_squash_crop_covers_every_offset_and_scales_with_the_picture() {
    let transform = TrainTransform::SquashCrop { resize: 512 };
    let mut offsets = BTreeSet::new();
    for sample in 0..4_000 {
        let p = transform.draw(3, 1, sample, 1_024, 256, 448);
        assert_eq!((p.width, p.height), (896.0, 224.0));
        offsets.insert((p.left / 2.0) as u32);
    }
    assert_eq!(offsets, (0..=64).collect());
}

#[test]
fn numbers_without_a_meaning_are_refused_by_name() {
    let crop = |scale, ratio| TrainTransform::RandomResizedCrop { scale, ratio };
    let multi = |scales: &[f64]| TrainTransform::MultiScaleCrop {
        resize: 512,
        scales: scales.to_vec(),
        max_distort: 1,
    };
    for (transform, part) in [
        (crop((0.0, 1.0), (1.0, 1.0)), "scale 0 to 1"),
        (crop((0.5, 1.1), (1.0, 1.0)), "scale 0.5 to 1.1"),
        (crop((f64::NAN, 1.0), (1.0, 1.0)), "scale NaN"),
        (crop((0.5, 1.0), (2.0, 1.0)), "ratio 2 to 1"),
        (crop((0.5, 1.0), (1.0, f64::INFINITY)), "ratio 1 to inf"),
        (multi(&[]), "scales is empty"),
        (multi(&[1.0, 1.5]), "scale 1.5"),
        (TrainTransform::SquashCrop { resize: 0 }, "resize is 0"),
        (
            TrainTransform::SquashCrop { resize: 447 },
            "smaller than the output size 448",
        ),
    ] {
        let text = transform.validate(448).unwrap_err();
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(
        all()
            .iter()
            .all(|transform| transform.validate(448) == Ok(()))
    );
}
