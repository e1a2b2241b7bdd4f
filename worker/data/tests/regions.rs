//! Decoding a part of a picture: the pixels are those of the whole, and those of libjpeg-turbo bit for bit.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod given;

use data::jpeg::{Decoder, Region, RgbImage, decode};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use serde_json::json;

/// Draws pictures of every usual kind, encodes them with Pillow and writes the pixels that Pillow gets back.
const PEER: &str = r#"
import json, random, sys
from pathlib import Path
from PIL import Image, ImageFile

folder = Path(sys.argv[1])
random.seed(1)
# Tiny pictures at high quality are longer than the room that Pillow makes for them.
ImageFile.MAXBLOCK = 1 << 20
sizes = [(1, 1), (2, 3), (3, 2), (5, 4), (8, 8), (16, 16), (17, 33), (33, 17), (64, 31), (101, 75), (250, 130)]
answers = []
def keep(image, name, **options):
    image.save(folder / f"{name}.jpg", **options)
    back = Image.open(folder / f"{name}.jpg").convert("RGB")
    (folder / f"{name}.raw").write_bytes(back.tobytes())
    answers.append({"name": name, "width": back.width, "height": back.height})
for width, height in sizes:
    # Blocks of colour and noise: hard edges reach the limits of every step.
    image = Image.new("RGB", (width, height))
    pixels = image.load()
    for y in range(height):
        for x in range(width):
            base = ((x // 5 * 83 + y // 7 * 41) % 256, (x * 3) % 256, (y * 5 + x // 9 * 90) % 256)
            pixels[x, y] = tuple(min(255, max(0, c + random.randint(-40, 40))) for c in base)
    for sampling in (0, 1, 2):
        for quality in (30, 75, 97):
            for restart in (0, 3):
                keep(image, f"{width}x{height}-{sampling}-{quality}-{restart}", subsampling=sampling, quality=quality,
                     optimize=restart == 0, restart_marker_blocks=restart)
    keep(image.convert("L"), f"{width}x{height}-gray", quality=80)
for path in sys.argv[2:]:
    back = Image.open(path).convert("RGB")
    name = Path(path).stem
    (folder / f"{name}.raw").write_bytes(back.tobytes())
    (folder / f"{name}.jpg").write_bytes(Path(path).read_bytes())
    answers.append({"name": name, "width": back.width, "height": back.height})
print(json.dumps(answers))
"#;

/// Regions in a picture of this size: the whole, edges, corners, single pixels, and what lies across blocks.
fn regions(width: u32, height: u32) -> Vec<Region> {
    let spans = |length: u32| {
        [
            (0, length),
            (0, 1),
            (length - 1, 1),
            (length / 3, (length / 2).max(1)),
            (length / 2, length - length / 2),
            (7.min(length - 1), 2.min(length - 7.min(length - 1))),
        ]
    };
    let rows = spans(height);
    spans(width)
        .into_iter()
        .flat_map(|(left, width)| {
            rows.into_iter().map(move |(top, height)| Region {
                left,
                top,
                width,
                height,
            })
        })
        .collect()
}

fn cut(image: &RgbImage, region: Region) -> Vec<u8> {
    let bytes = |pixels: u32| pixels as usize * 3;
    (region.top..region.top + region.height)
        .flat_map(|y| {
            let start = bytes(y * image.width + region.left);
            image.pixels[start..start + bytes(region.width)].to_vec()
        })
        .collect()
}

fn assert_regions(bytes: &[u8], whole: &RgbImage, decoder: &mut Decoder, what: &str) {
    let mut image = RgbImage::default();
    for region in regions(whole.width, whole.height) {
        let decoded = decoder.decode(bytes, |_| region, &mut image).unwrap();
        assert_eq!(decoded.region, region, "{what}");
        assert_eq!(
            (image.width, image.height),
            (region.width, region.height),
            "{what}"
        );
        assert!(
            image.pixels == cut(whole, region),
            "{what}: {region:?} is not that part of the whole"
        );
    }
}

#[test]
fn pictures_of_the_usual_kinds_have_the_pixels_of_libjpeg_turbo_whole_and_by_region() {
    let Some(mut python) = given::python() else {
        return;
    };
    // given: pictures drawn by Pillow, and real ones if there are any
    let dir = tempfile::tempdir().unwrap();
    python.arg("-c").arg(PEER).arg(dir.path());
    // Pillow writes no 4:4:0, but reads it.
    for (width, height) in [(1, 1), (3, 2), (8, 8), (17, 33), (33, 17), (101, 75)] {
        let colours = (0..u32::from(width) * u32::from(height) * 3).map(|at| {
            let drawn = at.wrapping_mul(2_654_435_761).rotate_right(13) ^ (at / 40 * 59);
            (drawn % 256) as u8
        });
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 85);
        encoder.set_sampling_factor(SamplingFactor::F_1_2);
        let colours: Vec<u8> = colours.collect();
        encoder
            .encode(&colours, width, height, ColorType::Rgb)
            .unwrap();
        let given = dir.path().join("given");
        std::fs::create_dir_all(&given).unwrap();
        let path = given.join(format!("{width}x{height}-440.jpg"));
        std::fs::write(&path, &bytes).unwrap();
        python.arg(path);
    }
    if let Some(root) = given::coco() {
        let photos = std::fs::read_dir(root.join("val2017")).unwrap();
        python.args(photos.take(8).map(|entry| entry.unwrap().path()));
    }
    let output = python.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut decoder = Decoder::new();
    for entry in listed.as_array().unwrap() {
        let name = entry["name"].as_str().unwrap();
        let bytes = std::fs::read(dir.path().join(format!("{name}.jpg"))).unwrap();
        let theirs = std::fs::read(dir.path().join(format!("{name}.raw"))).unwrap();
        // when
        let (ours, _) = decode(&bytes).unwrap();
        // then
        assert_eq!(
            json!([ours.width, ours.height]),
            json!([entry["width"], entry["height"]])
        );
        let differing = ours.pixels.iter().zip(&theirs).filter(|(a, b)| a != b);
        assert_eq!(differing.count(), 0, "{name}: values differ from Pillow's");
        assert_regions(&bytes, &ours, &mut decoder, name);
    }
}

#[test]
fn a_region_of_any_legal_kind_is_that_part_of_the_whole() {
    let mut decoder = Decoder::new();
    for (colour, channels) in [
        (ColorType::Rgb, 3),
        (ColorType::Luma, 1),
        (ColorType::Cmyk, 4),
    ] {
        for sampling in [
            SamplingFactor::F_1_1,
            SamplingFactor::F_1_2,
            SamplingFactor::F_2_2,
            SamplingFactor::F_4_1,
        ] {
            for progressive in [false, true] {
                // given
                let (width, height) = (75_u16, 52_u16);
                let stored: Vec<u8> = (0..u32::from(width) * u32::from(height) * channels)
                    .map(|i| (i * 7 / 5 + i / 333 * 11) as u8)
                    .collect();
                let mut bytes = Vec::new();
                let mut encoder = Encoder::new(&mut bytes, 90);
                encoder.set_sampling_factor(sampling);
                encoder.set_progressive(progressive);
                encoder.encode(&stored, width, height, colour).unwrap();
                // when
                let (whole, _) = decode(&bytes).unwrap();
                // then
                let what = format!("{colour:?} {sampling:?} progressive {progressive}");
                assert_regions(&bytes, &whole, &mut decoder, &what);
            }
        }
    }
}

#[test]
fn damage_outside_the_region_is_refused_like_damage_within() {
    // given a picture that is cut in its lower half and closed again
    let mut bytes = Vec::new();
    let stored: Vec<u8> = (0..64 * 64 * 3_u32).map(|i| (i * i / 97) as u8).collect();
    let encoder = Encoder::new(&mut bytes, 90);
    encoder.encode(&stored, 64, 64, ColorType::Rgb).unwrap();
    bytes.truncate(bytes.len() * 3 / 4);
    bytes.extend_from_slice(b"\xff\xd9");
    // when only its first rows are asked for
    let region = Region {
        left: 0,
        top: 0,
        width: 64,
        height: 8,
    };
    let outcome = Decoder::new().decode(&bytes, |_| region, &mut RgbImage::default());
    // then
    let text = outcome.unwrap_err().to_string();
    assert!(text.contains("ends early"), "{text}");
}

#[test]
fn tables_of_one_picture_are_never_used_for_the_next() {
    // given a picture, and the same without its code tables
    let mut bytes = Vec::new();
    let stored: Vec<u8> = (0..16 * 16 * 3_u32).map(|i| (i * 31) as u8).collect();
    Encoder::new(&mut bytes, 90)
        .encode(&stored, 16, 16, ColorType::Rgb)
        .unwrap();
    let mut without = bytes.clone();
    while let Some(at) = without.windows(2).position(|pair| pair == [0xff, 0xc4]) {
        let length = usize::from(u16::from_be_bytes([without[at + 2], without[at + 3]]));
        without.drain(at..at + 2 + length);
    }
    let mut decoder = Decoder::new();
    let mut image = RgbImage::default();
    // when
    decoder.decode(&bytes, Region::whole, &mut image).unwrap();
    let after = decoder.decode(&without, Region::whole, &mut image);
    // then it ends as in a decoder that never saw the first
    let fresh = Decoder::new().decode(&without, Region::whole, &mut RgbImage::default());
    assert!(fresh.is_err());
    assert_eq!(after, fresh);
}
