use super::*;

#[test]
fn weights_are_one_together_and_lie_within_the_picture() {
    for (limit, size) in [
        (1, 1),
        (1, 448),
        (640, 448),
        (447, 448),
        (895, 448),
        (33, 17),
    ] {
        let mut all = Vec::new();
        let length = limit as f64;
        assert!(weigh((0.0, length), limit, size, &mut all));
        assert_eq!(all.len(), size);
        for taps in all {
            let sum: i32 = taps.weights.iter().map(|&weight| i32::from(weight)).sum();
            assert_eq!(sum, 1 << BITS);
            let used = taps.weights.iter().rposition(|&weight| weight != 0);
            assert!(taps.weights.iter().all(|&weight| weight >= 0));
            assert!(used.is_some_and(|last| taps.first + last < limit));
        }
    }
}

#[test]
fn what_shrinks_to_half_or_less_is_left_to_others() {
    let pixels = vec![0; 32 * 32 * 3];
    for (size, expected) in [(17, true), (16, false), (1, false)] {
        let part = Part {
            pixels: &pixels,
            stride: 32 * 3,
            origin: (0, 0),
            size: (32, 32),
            shown: [(0.0, 32.0); 2],
        };
        let mut out = vec![0; size * size * 3];
        let done = Near::default().resize(&part, size, false, &mut out);
        assert_eq!(done, expected, "to {size}");
    }
}

/// The same with the smallest vectors, which few machines would choose.
#[cfg(target_arch = "x86_64")]
#[test]
fn every_kind_of_vector_gives_the_same() {
    let (width, height, size) = (45, 38, 37);
    let pixels: Vec<u8> = (0..width * height * 3).map(|i| (i * i / 7) as u8).collect();
    let part = Part {
        pixels: &pixels,
        stride: width * 3,
        origin: (2, 1),
        size: (width - 3, height - 2),
        shown: [(0.5, 41.0), (0.25, 35.5)],
    };
    let mut near = Near::default();
    let mut widest = vec![0; size * size * 3];
    assert!(near.resize(&part, size, true, &mut widest));
    let mut narrow = vec![0; widest.len()];
    let simd = Level::new()
        .as_sse2()
        .expect("every x86-64 machine has SSE2");
    near.run(simd, &part, size, &mut narrow);
    assert!(widest == narrow);
}
