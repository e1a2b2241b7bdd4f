//! Decoding and resizing against Pillow and torchvision, on real pictures.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod given;

use data::augment::{Placement, TrainTransform};
use data::coco::{DataPaths, Dataset, Options};
use data::jpeg::{RgbImage, decode};
use data::transform::Resampler;
use serde_json::json;

const PEER: &str = r#"
import json, sys
from PIL import Image
from torchvision.transforms.v2 import functional as F

for job in json.load(open(sys.argv[1])):
    image = F.pil_to_tensor(Image.open(job["jpeg"]).convert("RGB"))
    open(job["decoded"], "wb").write(image.permute(1, 2, 0).contiguous().numpy().tobytes())
    # From here on their pixels, so that what is compared is all that becomes of a file.
    for crop in job["crops"]:
        left, top, width, height = crop["box"]
        size = [crop["size"]] * 2
        out = F.resized_crop(image, top, left, height, width, size, antialias=True)
        if crop["flip"]:
            out = F.horizontal_flip(out)
        open(crop["out"], "wb").write(out.permute(1, 2, 0).contiguous().numpy().tobytes())
"#;

struct Crop {
    image: usize,
    placement: Placement,
    size: u32,
    out: std::path::PathBuf,
}

#[test]
fn pictures_are_decoded_as_by_pillow_and_resized_as_by_torchvision_with_antialiasing() {
    let Some(root) = given::coco() else { return };
    let Some(mut python) = given::python() else {
        return;
    };
    // given pictures, each with crops that shrink, enlarge, keep the size, and are thin
    let dir = tempfile::tempdir().unwrap();
    let dataset = Dataset::open(&DataPaths::root(root), &Options::default()).unwrap();
    let mut images: Vec<RgbImage> = Vec::new();
    let mut crops = Vec::new();
    let mut jobs = Vec::new();
    for (index, sample) in (0..dataset.val.samples.len() as u32)
        .step_by(17)
        .take(6)
        .enumerate()
    {
        let path = dataset.val.image_path(sample).unwrap();
        let image = decode(&std::fs::read(&path).unwrap()).unwrap().0;
        let (w, h) = (image.width, image.height);
        let mut boxes = vec![
            ([0, 0, w, h], 448, false),
            ([0, 0, w, h], 224, true),
            ([w / 5, h / 7, w / 2, h / 2], 448, true),
            ([w / 3, h / 3, w / 2, h / 2], 96, false),
            ([3, 5, 200, 200], 200, true),
            ([1, 0, 31, h], 64, false),
        ];
        // Of every size, somewhere else each time.
        for percent in (2..=98).step_by(8) {
            let (width, height) = ((w * percent / 100).max(1), (h * percent / 100).max(1));
            let (left, top) = (
                (w - width) * (percent % 5) / 4,
                (h - height) * (percent % 3) / 2,
            );
            boxes.push(([left, top, width, height], 448, false));
        }
        let first = crops.len();
        for ([left, top, width, height], size, flip) in boxes {
            crops.push(Crop {
                image: index,
                placement: Placement {
                    left: left.into(),
                    top: top.into(),
                    width: width.into(),
                    height: height.into(),
                    flip,
                },
                size,
                out: dir.path().join(format!("{}.out", crops.len())),
            });
        }
        let listed = crops[first..].iter().map(|crop| {
            let p = crop.placement;
            let box_ = [p.left, p.top, p.width, p.height].map(|v| v as u32);
            json!({"box": box_, "size": crop.size, "flip": p.flip, "out": crop.out})
        });
        jobs.push(json!({
            "jpeg": path, "decoded": dir.path().join(format!("{index}.decoded")),
            "crops": listed.collect::<Vec<_>>(),
        }));
        images.push(image);
    }
    let file = dir.path().join("jobs.json");
    std::fs::write(&file, json!(jobs).to_string()).unwrap();

    // when
    let output = python.arg("-c").arg(PEER).arg(&file).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    // then
    for (index, image) in images.iter().enumerate() {
        let theirs = std::fs::read(dir.path().join(format!("{index}.decoded"))).unwrap();
        let difference = mean_difference(&image.pixels, &theirs);
        assert!(difference < 0.25, "picture {index}: {difference}");
    }
    let mut resampler = Resampler::new();
    for crop in &crops {
        let mut ours = vec![0; (crop.size * crop.size * 3) as usize];
        let image = &images[crop.image];
        resampler
            .render(image, &crop.placement, crop.size, &mut ours)
            .unwrap();
        let theirs = std::fs::read(&crop.out).unwrap();
        let difference = mean_difference(&ours, &theirs);
        assert!(
            difference < 0.25,
            "{:?} to {}: {difference}",
            crop.placement,
            crop.size
        );
        // One line or column beside it, or not mirrored, is another picture: the bound would see it. A small part may be
        // a piece of sky.
        if crop.placement.width * crop.placement.height < 100.0 * 31.0 {
            continue;
        }
        let mut mirrored = vec![0; ours.len()];
        let placement = Placement {
            flip: !crop.placement.flip,
            ..crop.placement
        };
        resampler
            .render(image, &placement, crop.size, &mut mirrored)
            .unwrap();
        assert!(mean_difference(&mirrored, &theirs) > 2.0);
    }
}

#[test]
fn a_part_of_a_picture_gives_what_the_whole_gives_whatever_else_is_in_it() {
    let (width, height) = (163, 121);
    let image = RgbImage {
        width,
        height,
        pixels: (0..width * height * 3)
            .map(|i| (i * i / 77) as u8)
            .collect(),
    };
    let mut resampler = Resampler::new();
    for (transform, id) in [
        TrainTransform::random_resized_crop(),
        TrainTransform::multi_scale_crop(),
        TrainTransform::SquashCrop { resize: 512 },
    ]
    .into_iter()
    .flat_map(|transform| (0..100).map(move |id| (transform.clone(), id)))
    {
        // given a crop, with fractions
        let placement = transform.draw(1, 0, id, width, height, 48);
        let mut expected = vec![0; 48 * 48 * 3];
        resampler
            .render(&image, &placement, 48, &mut expected)
            .unwrap();
        // when only its rows and columns are there, or more of them
        let region = placement.region();
        for more in [0, 1, 9] {
            let (left, top) = (
                region.left.saturating_sub(more),
                region.top.saturating_sub(more),
            );
            let right = (region.left + region.width + more).min(width);
            let bottom = (region.top + region.height + more).min(height);
            let rows = (top..bottom).flat_map(|y| {
                let row = (y * width * 3) as usize;
                &image.pixels[row + left as usize * 3..row + right as usize * 3]
            });
            let part = RgbImage {
                width: right - left,
                height: bottom - top,
                pixels: rows.copied().collect(),
            };
            let mut out = vec![0; 48 * 48 * 3];
            resampler
                .render_part(&part, (left, top), &placement, 48, &mut out)
                .unwrap();
            // then
            assert!(out == expected, "{placement:?} with {more} more");
        }
    }
}

fn mean_difference(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum: u64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    sum as f64 / a.len() as f64
}

#[test]
fn a_crop_of_the_very_size_is_copied_and_a_flip_turns_rows() {
    let pixels: Vec<u8> = (0..12 * 10 * 3).map(|i| (i % 251) as u8).collect();
    let image = RgbImage {
        width: 12,
        height: 10,
        pixels: pixels.clone(),
    };
    for flip in [false, true] {
        let placement = Placement {
            left: 3.0,
            top: 2.0,
            width: 8.0,
            height: 8.0,
            flip,
        };
        let mut out = vec![0; 8 * 8 * 3];
        Resampler::new()
            .render(&image, &placement, 8, &mut out)
            .unwrap();
        for y in 0..8 {
            for x in 0..8 {
                let from = ((y + 2) * 12 + 3 + if flip { 7 - x } else { x }) * 3;
                let to = (y * 8 + x) * 3;
                assert_eq!(out[to..to + 3], pixels[from..from + 3], "{x}, {y}");
            }
        }
    }
}

#[test]
fn pictures_of_every_shape_and_edges_off_by_rounding_are_resized() {
    for (width, height) in [(1, 1), (1, 300), (300, 1), (7, 5), (449, 447)] {
        let image = RgbImage {
            width,
            height,
            pixels: vec![77; (width * height * 3) as usize],
        };
        let whole = Placement::whole(width, height);
        let beyond = Placement {
            left: -1e-9,
            width: f64::from(width) + 1e-6,
            ..whole
        };
        let speck = Placement {
            left: f64::from(width) / 2.0,
            width: f64::from(width) / 1000.0,
            ..whole
        };
        for placement in [whole, beyond, speck] {
            let mut out = vec![0; 448 * 448 * 3];
            Resampler::new()
                .render(&image, &placement, 448, &mut out)
                .unwrap();
            assert!(out.iter().all(|&v| v == 77), "{placement:?}");
        }
    }
}

#[test]
fn room_of_another_size_is_an_error() {
    let image = RgbImage {
        width: 2,
        height: 2,
        pixels: vec![0; 12],
    };
    let whole = Placement::whole(2, 2);
    let mut resampler = Resampler::new();
    assert!(resampler.render(&image, &whole, 4, &mut [0; 47]).is_err());
    assert!(resampler.render(&image, &whole, 0, &mut []).is_err());
    let short = RgbImage {
        pixels: vec![0; 11],
        ..image
    };
    assert!(resampler.render(&short, &whole, 4, &mut [0; 48]).is_err());
}
