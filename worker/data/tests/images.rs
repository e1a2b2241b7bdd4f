//! Pictures as people have them: every IMG case, at start-up, in the decoder and in the loader.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod given;

use data::augment::TrainTransform;
use data::files::{CheckOptions, OnBadImage, check_files, list_images};
use data::jpeg::{RgbImage, decode, decode_into, probe};
use data::loader::{Batch, LoadError, Loader, LoaderOptions, Purpose, Request};
use given::Variant;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

#[test]
fn every_picture_case_ends_as_it_should() {
    let Some(cases) = given::cases() else { return };
    let mut seen = 0;
    for id in [
        "IMG-01", "IMG-02", "IMG-04", "IMG-05", "IMG-06", "IMG-08", "IMG-10", "IMG-13",
    ] {
        for variant in given::variants(&cases, id) {
            match variant.outcome() {
                "accept" => assert_accepted(&variant),
                "error" => assert_refused(&variant),
                // Either is right; ours is to refuse what has no end marker.
                _ => assert_refused(&variant),
            }
            seen += 1;
        }
    }
    assert!(seen >= 40, "only {seen} variants");
}

fn assert_accepted(variant: &Variant) {
    let (name, path) = (&variant.name, &variant.path);
    let bytes = std::fs::read(path).unwrap();
    let (image, warning) = decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(
        json!([image.width, image.height]),
        variant.expected["size"],
        "{name}"
    );
    let header = probe(&bytes).unwrap();
    assert_eq!(
        (header.width, header.height),
        (image.width, image.height),
        "{name}"
    );
    if let Some(reference) = variant.expected["reference_png"].as_str() {
        let reference = read_png(&path.with_file_name(reference));
        let tolerance = variant.expected["mean_abs_tolerance"].as_f64().unwrap();
        let difference = mean_difference(&image, &reference);
        assert!(
            difference <= tolerance,
            "{name}: {difference} is over {tolerance}"
        );
    }
    if header.components == 1 {
        let (pixels, _) = image.pixels.as_chunks::<3>();
        assert!(
            pixels.iter().all(|[r, g, b]| r == g && g == b),
            "{name} is gray"
        );
    }
    // at start-up
    check(path, OnBadImage::Error).unwrap_or_else(|text| panic!("{name}: {text}"));
    // and in training, validation and scoring of the training set
    for transform in [
        TrainTransform::random_resized_crop(),
        TrainTransform::multi_scale_crop(),
    ] {
        for purpose in [Purpose::Train, Purpose::Val, Purpose::TrainPlain] {
            let batch = load(path, &transform, purpose, OnBadImage::Error)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(batch.pixels.len(), 448 * 448 * 3, "{name}");
            assert_eq!(batch.warnings, u64::from(warning.is_some()), "{name}");
        }
    }
}

fn assert_refused(variant: &Variant) {
    let (name, path) = (&variant.name, &variant.path);
    let transform = TrainTransform::random_resized_crop();
    let file = path.file_name().unwrap().to_str().unwrap();
    for purpose in [Purpose::Train, Purpose::Val] {
        let error = match load(path, &transform, purpose, OnBadImage::Error) {
            Err(error @ LoadError::BadImage(_)) => error.to_string(),
            other => panic!("{name}: {other:?}"),
        };
        variant.assert_message(&error);
        assert!(
            error.contains("image id 1") && error.contains(file),
            "{name}: {error}"
        );
        let batch = load(path, &transform, purpose, OnBadImage::Skip).unwrap();
        assert_eq!((batch.sample_ids.len(), batch.skipped.len()), (0, 1));
    }
    // What start-up finds, it says in the same words.
    let text = check(path, OnBadImage::Error).unwrap_err();
    variant.assert_message(&text);
    assert!(text.contains("image id 1"), "{name}: {text}");
    check(path, OnBadImage::Skip).unwrap();
}

/// The check at start-up of a split with this picture alone.
fn check(path: &Path, on_bad_image: OnBadImage) -> Result<(), String> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let split = given::split_of(path.parent().unwrap(), &[name]);
    let options = CheckOptions {
        on_bad_image,
        threads: 1,
        cache: None,
    };
    let report = check_files(&split, &options).map_err(|error| error.to_string())?;
    let bad = usize::from(on_bad_image == OnBadImage::Skip);
    assert_eq!((report.checked, report.bad.len()), (1, bad));
    Ok(())
}

fn load(
    path: &Path,
    train: &TrainTransform,
    purpose: Purpose,
    on_bad_image: OnBadImage,
) -> Result<Batch, LoadError> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let split = Arc::new(given::split_of(path.parent().unwrap(), &[name]));
    let options = LoaderOptions {
        size: 448,
        seed: 1,
        train: train.clone(),
        flip: true,
        cache: None,
        pixels: Default::default(),
        on_bad_image,
        threads: 1,
        prefetch: 1,
    };
    let loader = Loader::start(Arc::clone(&split), split, options).unwrap();
    loader.push(Request {
        tag: 0,
        epoch: 0,
        purpose,
        samples: vec![0],
    });
    loader.next().unwrap()
}

fn read_png(path: &Path) -> RgbImage {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut decoder = png::Decoder::new(file);
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!(info.color_type, png::ColorType::Rgb, "{}", path.display());
    pixels.truncate(info.buffer_size());
    RgbImage {
        width: info.width,
        height: info.height,
        pixels,
    }
}

fn mean_difference(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!((a.width, a.height), (b.width, b.height));
    let sum: u64 = a
        .pixels
        .iter()
        .zip(&b.pixels)
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    sum as f64 / a.pixels.len() as f64
}

#[test]
fn huge_pictures_stay_within_their_memory() {
    let Some(cases) = given::cases() else { return };
    for variant in given::variants(&cases, "IMG-13") {
        // when: in a process of its own, whose peak memory is only this
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "peak_memory_of_one_picture", "--nocapture"])
            .env("HGAT_ONE_PICTURE", &variant.path)
            .output()
            .unwrap();
        // then
        let text = String::from_utf8_lossy(&output.stdout);
        let peak = text
            .split("peak_kib=")
            .nth(1)
            .and_then(|t| t.split_whitespace().next())
            .unwrap_or_else(|| panic!("{text}"));
        let peak = peak.parse::<u64>().unwrap() / 1024;
        let limit = variant.expected["max_rss_mib"].as_u64().unwrap();
        assert!(peak < limit, "{}: {peak} MiB", variant.name);
    }
}

/// Measured by the test above in a process of its own.
#[test]
fn peak_memory_of_one_picture() {
    let Some(path) = std::env::var_os("HGAT_ONE_PICTURE") else {
        return;
    };
    let path = Path::new(&path);
    let _ = check(path, OnBadImage::Error);
    let _ = load(
        path,
        &TrainTransform::random_resized_crop(),
        Purpose::Train,
        OnBadImage::Error,
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    println!("peak_kib={}", line.split_whitespace().nth(1).unwrap());
}

#[test]
fn a_folder_for_prediction_gives_its_pictures_in_order_of_names_and_nothing_else() {
    let Some(cases) = given::cases() else { return };
    let variant = given::variants(&cases, "IMG-15").remove(0);

    let listed = list_images(&variant.path).unwrap();

    let mut expected: Vec<&str> = ["with_logits", "with_error"]
        .iter()
        .flat_map(|key| variant.expected[key].as_array().unwrap())
        .map(|name| name.as_str().unwrap())
        .collect();
    expected.sort_unstable();
    let names: Vec<&str> = listed
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, expected);
    let mut image = RgbImage::default();
    for (path, name) in listed.iter().zip(names) {
        let good = decode_into(&std::fs::read(path).unwrap(), &mut image).is_ok();
        let expected = variant.expected["with_logits"]
            .as_array()
            .unwrap()
            .contains(&json!(name));
        assert_eq!(good, expected, "{name}");
    }
}

#[test]
fn hidden_files_folders_and_text_are_passed_over_and_other_pictures_are_not() {
    // given
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "b.JPEG",
        "a.jpg",
        "c.PNG",
        ".DS_Store",
        "._a.jpg",
        "notes.txt",
        "jpg",
        "d.jpe",
    ] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    std::fs::create_dir(dir.path().join("folder.jpg")).unwrap();

    // when
    let listed = list_images(dir.path()).unwrap();

    // then
    let names = ["a.jpg", "b.JPEG", "c.PNG", "d.jpe"];
    assert_eq!(listed, names.map(|name| dir.path().join(name)));
    assert!(list_images(&dir.path().join("none")).is_err());
}
