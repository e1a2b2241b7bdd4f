//! Every operation of RandAugment gives Pillow's bytes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use data::augment::operations::{Canvas, Operation};
use std::process::Command;

const SIDE: usize = 48;

/// Reads a picture and prints it after each operation, as hexadecimal.
const PROGRAM: &str = r#"
import sys
from PIL import Image, ImageEnhance, ImageOps
side = int(sys.argv[1])
image = Image.frombytes("RGB", (side, side), bytes.fromhex(sys.argv[2]))
fill = (10, 20, 30)
affine = lambda *m: image.transform(image.size, Image.AFFINE, m, Image.NEAREST, fillcolor=fill)
operations = {
    "ShearX": lambda v: affine(1, v, 0, 0, 1, 0),
    "ShearY": lambda v: affine(1, 0, 0, v, 1, 0),
    "TranslateX": lambda v: affine(1, 0, v, 0, 1, 0),
    "TranslateY": lambda v: affine(1, 0, 0, 0, 1, v),
    "Rotate": lambda v: image.rotate(v, fillcolor=fill),
    "Brightness": lambda v: ImageEnhance.Brightness(image).enhance(v),
    "Color": lambda v: ImageEnhance.Color(image).enhance(v),
    "Contrast": lambda v: ImageEnhance.Contrast(image).enhance(v),
    "Sharpness": lambda v: ImageEnhance.Sharpness(image).enhance(v),
    "Posterize": lambda v: ImageOps.posterize(image, int(v)),
    "Solarize": lambda v: ImageOps.solarize(image, int(v)),
    "AutoContrast": lambda v: ImageOps.autocontrast(image),
    "Equalize": lambda v: ImageOps.equalize(image),
}
for case in sys.argv[3:]:
    name, value = case.split("=")
    print(operations[name](float(value)).tobytes().hex())
"#;

/// A picture with edges, a gradient and some noise, so that no operation is trivial.
fn picture() -> Vec<u8> {
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 27) as usize
    };
    (0..SIDE * SIDE)
        .flat_map(|at| {
            let (x, y) = (at % SIDE, at / SIDE);
            let edge = if (x / 7 + y / 11) % 2 == 0 { 60 } else { 0 };
            [
                20 + 2 * x + edge,
                40 + 3 * y / 2 + noise(),
                30 + x + y + edge + noise(),
            ]
        })
        .map(|value| u8::try_from(value).unwrap_or(255))
        .collect()
}

fn operations() -> Vec<(String, Operation)> {
    let mut all = Vec::new();
    let mut add =
        |value: f64, name: &str, operation| all.push((format!("{name}={value}"), operation));
    for v in [0.27, -0.27, 0.1] {
        add(v, "ShearX", Operation::ShearX(v));
        add(v, "ShearY", Operation::ShearY(v));
    }
    for v in [19.6, -19.6, 3.0, -0.4] {
        add(v, "TranslateX", Operation::TranslateX(v));
        add(v, "TranslateY", Operation::TranslateY(v));
    }
    for v in [27.0, -27.0, 3.0] {
        add(v, "Rotate", Operation::Rotate(v));
    }
    for v in [0.1, 0.19, 0.7, 1.0, 1.3, 1.81, 1.9] {
        let factor = v as f32;
        add(v, "Brightness", Operation::Brightness(factor));
        add(v, "Color", Operation::Color(factor));
        add(v, "Contrast", Operation::Contrast(factor));
        add(v, "Sharpness", Operation::Sharpness(factor));
    }
    for bits in [4, 6, 8] {
        add(f64::from(bits), "Posterize", Operation::Posterize(bits));
    }
    for threshold in [0, 26, 128, 255] {
        add(
            f64::from(threshold),
            "Solarize",
            Operation::Solarize(threshold),
        );
    }
    add(0.0, "AutoContrast", Operation::AutoContrast);
    add(0.0, "Equalize", Operation::Equalize);
    all
}

#[test]
fn every_operation_gives_the_bytes_that_pillow_gives() {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let (picture, operations) = (picture(), operations());
    let python = std::env::var("HGAT_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(python)
        .args([
            "-W",
            "ignore",
            "-c",
            PROGRAM,
            &SIDE.to_string(),
            &hex(&picture),
        ])
        .args(operations.iter().map(|(case, _)| case))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{said}; set HGAT_PYTHON to a Python with Pillow"
    );
    let theirs = String::from_utf8(output.stdout).unwrap();
    assert_eq!(theirs.lines().count(), operations.len());
    for ((case, operation), theirs) in operations.into_iter().zip(theirs.lines()) {
        let mut pixels = picture.clone();
        let mut canvas = Canvas {
            pixels: &mut pixels,
            side: SIDE,
            fill: [10, 20, 30],
        };
        canvas.apply(operation, &mut Vec::new());
        let ours = hex(&pixels);
        let pairs = ours.as_bytes().chunks(2).zip(theirs.as_bytes().chunks(2));
        let different = pairs.filter(|(a, b)| a != b).count();
        assert_eq!(
            different,
            0,
            "{case}: {different} of {} bytes differ",
            pixels.len()
        );
    }
}
