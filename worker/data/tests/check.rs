//! The check of picture files at start-up: what is bad, what it remembers, and what it says.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod given;

use data::files::{CheckOptions, FileReport, OnBadImage, check_files};
use std::path::Path;

/// A small whole JPEG.
fn jpeg() -> Vec<u8> {
    let mut bytes = Vec::new();
    let pixels: Vec<u8> = (0..40 * 30 * 3).map(|i| (i % 256) as u8).collect();
    jpeg_encoder::Encoder::new(&mut bytes, 90)
        .encode(&pixels, 40, 30, jpeg_encoder::ColorType::Rgb)
        .unwrap();
    bytes
}

fn check(dir: &Path, names: &[&str], threads: usize, cache: Option<&Path>) -> FileReport {
    let options = CheckOptions {
        on_bad_image: OnBadImage::Skip,
        threads,
        cache,
    };
    check_files(&given::split_of(dir, names), &options).unwrap()
}

#[test]
fn a_picture_found_good_is_not_opened_again_until_it_changes() {
    // given two good pictures and a cut one
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    let whole = jpeg();
    write("a.jpg", &whole);
    write("b.jpg", &whole);
    write("c.jpg", &whole[..whole.len() / 2]);
    let names = ["a.jpg", "b.jpg", "c.jpg"];
    let look = || {
        let report = check(dir.path(), &names, 2, Some(&cache));
        assert_eq!(report.cache_error, None);
        let bad: Vec<u32> = report.bad.iter().map(|image| image.sample).collect();
        (report.checked, report.cached, bad)
    };
    // when, then: what is bad is never remembered
    assert_eq!(look(), (3, 0, vec![2]));
    assert_eq!(look(), (3, 2, vec![2]));
    // when one is cut, and one is mended
    write("a.jpg", &whole[..whole.len() - 2]);
    write("c.jpg", &whole);
    assert_eq!(look(), (3, 1, vec![0]));
    // when the cache is damaged, everything is looked at again
    std::fs::write(&cache, "pictures found whole, version 1\nhalf a li").unwrap();
    assert_eq!(look(), (3, 0, vec![0]));
    std::fs::write(&cache, [0xff, 0]).unwrap();
    assert_eq!(look(), (3, 0, vec![0]));
}

#[test]
fn a_cache_that_cannot_be_written_is_told_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.jpg"), jpeg()).unwrap();
    let cache = dir.path().join("no/such/folder");

    let report = check(dir.path(), &["a.jpg"], 1, Some(&cache));

    assert_eq!((report.checked, report.bad.len()), (1, 0));
    assert!(report.cache_error.unwrap().contains("no/such/folder"));
}

#[test]
fn the_report_is_the_same_for_any_number_of_threads() {
    // given more pictures than one thread takes at a time, some of them missing
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..300).map(|i| format!("{i}.jpg")).collect();
    for name in names.iter().filter(|name| !name.starts_with('7')) {
        std::fs::write(dir.path().join(name), jpeg()).unwrap();
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();

    let one = check(dir.path(), &names, 1, None);

    assert_eq!((one.checked, one.missing, one.bad.len()), (300, 11, 11));
    for threads in [0, 2, 4] {
        assert_eq!(check(dir.path(), &names, threads, None), one);
    }
}

#[test]
fn many_bad_pictures_are_counted_and_the_first_ones_named() {
    // given
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..30).map(|i| format!("{i}.jpg")).collect();
    for name in &names {
        std::fs::write(dir.path().join(name), "<html>").unwrap();
    }
    std::fs::remove_file(dir.path().join("29.jpg")).unwrap();
    std::fs::create_dir(dir.path().join("29.jpg")).unwrap();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    // when
    let error = check_files(
        &given::split_of(dir.path(), &names),
        &CheckOptions::default(),
    );
    // then
    let text = error.unwrap_err().to_string();
    for part in [
        "30 of 30 val pictures",
        "instances_val2017.json",
        "0.jpg (image id 1): not a JPEG: it holds a web page",
        "and 10 more",
        "data.on_bad_image=skip",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn a_header_behind_a_large_block_and_bytes_behind_the_end_are_read_as_far_as_needed() {
    // given a picture whose header lies beyond the first read, whole and cut
    let dir = tempfile::tempdir().unwrap();
    let whole = jpeg();
    let mut large = whole[..2].to_vec();
    for _ in 0..2 {
        large.extend_from_slice(b"\xff\xe1\xea\x60");
        large.resize(large.len() + 59_998, 0);
    }
    large.extend_from_slice(&whole[2..]);
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("large.jpg", &large);
    write("cut.jpg", &large[..large.len() - 20]);
    write("trailing.jpg", &[&large[..], &[0; 20_000]].concat());
    // when
    let report = check(
        dir.path(),
        &["large.jpg", "cut.jpg", "trailing.jpg"],
        1,
        None,
    );
    // then
    let bad: Vec<u32> = report.bad.iter().map(|image| image.sample).collect();
    assert_eq!(bad, [1]);
    assert!(
        report.bad[0].reason.contains("ends early"),
        "{:?}",
        report.bad
    );
}
