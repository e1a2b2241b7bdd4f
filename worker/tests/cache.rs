//! The cache of decoded pictures between processes: built by one, killed on the way, read by runs, cut off beneath them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::{Place, Watched};

const TRAIN: usize = 300;
const VAL: usize = 8;

fn build(place: &Place, cache: &Path) -> Command {
    let mut build = Command::new(support::worker());
    build
        .args(["cache", "build", "--threads", "1", "--data"])
        .arg(place.data())
        .arg("--cache")
        .arg(cache)
        .stdout(Stdio::piped());
    build
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn a_build_that_is_killed_is_gone_on_with_and_runs_on_its_pixels_are_the_same_runs() {
    let place = Place::with(TRAIN, VAL);
    let cache = place.path("cache");

    // Given a build that is killed once it has put something there
    let mut killed = build(&place, &cache).spawn().unwrap();
    while files(&cache).len() < 20 {
        assert!(killed.try_wait().unwrap().is_none(), "it was too fast");
    }
    killed.kill().unwrap();
    killed.wait().unwrap();

    // When it is built again
    let Output { status, stdout, .. } = build(&place, &cache).output().unwrap();

    // Then all of it is there
    let said = String::from_utf8(stdout).unwrap();
    assert!(status.success(), "{said}");
    for part in ["300 of 300 train pictures", "8 of 8 val pictures"] {
        assert!(said.contains(part), "{said}");
    }

    // And a run from there is that without, even if every file is cut off while it is read
    let epochs = "train.epochs=1";
    let without = place.good("without", 2, &[epochs]);
    let setting = format!("data.cache={}", cache.display());
    let with = place.good("with", 2, &[epochs, &setting]);
    assert_eq!(with.hashes(), without.hashes());
    assert_eq!(with.summary()["map"], without.summary()["map"]);

    let mut command = place.command("cut", 2, &[epochs, &setting]);
    let mut cut = Watched::start(&mut command, place.path("cut"));
    cut.wait_for_step(2);
    for path in files(&cache) {
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    }
    let cut = cut.end();
    assert_eq!(cut.code, Some(0), "{cut:#?}\n{}", cut.logs());
    assert_eq!(cut.hashes(), without.hashes());
}

#[test]
fn a_place_that_is_no_folder_is_named() {
    let place = Place::with(12, 4);
    let no_folder = place.path("file");
    fs::write(&no_folder, "").unwrap();
    let refused = build(&place, &no_folder)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_ne!(refused.status.code(), Some(0));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains(&no_folder.display().to_string()), "{said}");
}
