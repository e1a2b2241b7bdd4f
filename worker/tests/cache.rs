//! The cache of decoded pictures between processes: built by one, killed on the way, read by runs, cut off beneath them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use data::cache::{Cache, Reader, Shown};
use data::coco::{DataPaths, Dataset, Options};
use data::jpeg::{Region, RgbImage};
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

/// Whether a process has this file open.
fn has_open(process: &Child, file: &Path) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{}/fd", process.id())) else {
        return false;
    };
    let mut open = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    open.any(|target| target == file)
}

/// Waits for a state of processes that all go on.
fn wait_while_all_go_on(processes: &mut [Child], state: impl Fn(&[Child]) -> bool) {
    let give_up = Instant::now() + Duration::from_secs(120);
    while !state(processes) {
        assert!(Instant::now() < give_up, "waited in vain");
        for process in &mut *processes {
            assert!(process.try_wait().unwrap().is_none(), "it was too fast");
        }
    }
}

fn read(path: &Path, cache: Option<&Cache>) -> (Shown, RgbImage) {
    let mut image = RgbImage::default();
    let whole = |width, height| Region {
        left: 0,
        top: 0,
        width,
        height,
    };
    let shown = Reader::default().read(path, cache, whole, &mut image);
    (shown.unwrap(), image)
}

#[test]
fn processes_that_fill_a_cache_at_the_same_time_leave_every_picture_whole_and_once() {
    // Given three builds that all stand before the same empty folder
    let place = Place::with(1200, VAL);
    let cache = fs::canonicalize(place.data().parent().unwrap())
        .unwrap()
        .join("cache");
    fs::create_dir(&cache).unwrap();
    let total = cache.join("total");
    let account = File::create(&total).unwrap();
    account.lock().unwrap();
    let mut builds = [(); 3].map(|()| build(&place, &cache).spawn().unwrap());
    wait_while_all_go_on(&mut builds, |builds| {
        builds.iter().all(|build| has_open(build, &total))
    });

    // When they go on together, one is killed on the way, and another one comes
    account.unlock().unwrap();
    wait_while_all_go_on(&mut builds, |_| files(&cache).len() > 60);
    for build in &mut builds {
        assert!(build.try_wait().unwrap().is_none(), "it was too fast");
    }
    let [mut killed, second, third] = builds;
    killed.kill().unwrap();
    killed.wait().unwrap();
    let late = build(&place, &cache).spawn().unwrap();

    // Then each of the others has found or put there every picture
    for build in [second, third, late] {
        let Output { status, stdout, .. } = build.wait_with_output().unwrap();
        let said = String::from_utf8(stdout).unwrap();
        assert!(status.success(), "{said}");
        for part in ["1200 of 1200 train pictures", "8 of 8 val pictures"] {
            assert!(said.contains(part), "{said}");
        }
    }

    // And nothing lies there but the account and one file for each, as large together as the account says
    let dataset = Dataset::open(&DataPaths::root(place.data()), &Options::default()).unwrap();
    let entries: Vec<_> = files(&cache)
        .into_iter()
        .filter(|file| *file != total)
        .collect();
    assert_eq!(entries.len(), 1200 + VAL);
    assert!(
        entries
            .iter()
            .all(|entry| entry.parent() != Some(cache.as_path()))
    );
    let held: u64 = entries
        .iter()
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    let account = fs::read_to_string(&total).unwrap();
    assert_eq!(account.trim().parse::<u64>().unwrap(), held);

    // And each gives its picture's own pixels, with checksums that hold: trouble would be told, and one that is not found
    // would find no room
    let cached = Cache::open(&cache, held, |text| panic!("{text}")).unwrap();
    for split in [&dataset.train, &dataset.val] {
        for sample in &split.samples {
            let path = split.image_dir.join(&sample.file_name);
            assert!(read(&path, Some(&cached)) == read(&path, None), "{path:?}");
        }
    }
}

#[test]
fn processes_that_fill_a_cache_at_the_same_time_keep_within_its_limit() {
    // Given builds of a data set that is larger than the room
    let place = Place::with(60, VAL);
    let cache = place.path("cache");
    let dataset = Dataset::open(&DataPaths::root(place.data()), &Options::default()).unwrap();
    let sizes = dataset.train.samples.iter().map(|sample| {
        let (_, image) = read(&dataset.train.image_dir.join(&sample.file_name), None);
        image.pixels.len() as u64
    });
    let limit = sizes.sum::<u64>() / 2;

    // When several processes fill it: this very program, started for `filler` alone
    let program = std::env::current_exe().unwrap();
    let fillers = [(); 4].map(|()| {
        let mut filler = Command::new(&program);
        filler
            .args(["--exact", "filler", "--nocapture"])
            .env("HGAT_TEST_FILL", &cache)
            .env("HGAT_TEST_FILL_FROM", place.data())
            .env("HGAT_TEST_FILL_LIMIT", limit.to_string())
            .stdout(Stdio::null());
        filler.spawn().unwrap()
    });
    for filler in fillers {
        assert!(filler.wait_with_output().unwrap().status.success());
    }

    // Then it is filled, and not more than that
    let total = cache.join("total");
    let held: u64 = files(&cache)
        .iter()
        .filter(|file| **file != total)
        .map(|file| file.metadata().unwrap().len())
        .sum();
    assert!(held <= limit && held > limit / 2, "{held} of {limit}");
    let account = fs::read_to_string(&total).unwrap();
    assert_eq!(account.trim().parse::<u64>().unwrap(), held);
}

/// Not a test of its own, but what the one before this starts.
#[test]
fn filler() {
    let of = |name: &str| std::env::var(name);
    let Ok(cache) = of("HGAT_TEST_FILL") else {
        return;
    };
    let limit = of("HGAT_TEST_FILL_LIMIT").unwrap().parse().unwrap();
    let root = PathBuf::from(of("HGAT_TEST_FILL_FROM").unwrap());
    let dataset = Dataset::open(&DataPaths::root(root), &Options::default()).unwrap();
    let cache = Cache::open(cache.as_ref(), limit, |text| {
        assert!(text.contains("is full"), "{text}")
    });
    let cache = cache.unwrap();
    for sample in &dataset.train.samples {
        let path = dataset.train.image_dir.join(&sample.file_name);
        assert!(read(&path, Some(&cache)) == read(&path, None), "{path:?}");
    }
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

#[test]
fn a_data_set_may_be_named_file_by_file_as_in_a_runs_config() {
    let place = Place::with(12, VAL);
    let cache = place.path("cache");
    let data = place.data();
    let built = Command::new(support::worker())
        .args(["cache", "build", "--threads", "1", "--train-annotations"])
        .arg(data.join("annotations/instances_train2017.json"))
        .arg("--train-images")
        .arg(data.join("train2017"))
        .arg("--val-annotations")
        .arg(data.join("annotations/instances_val2017.json"))
        .arg("--val-images")
        .arg(data.join("val2017"))
        .arg("--cache")
        .arg(&cache)
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    let kept = files(&cache).len();
    assert!(kept >= 12 + VAL, "{kept}");

    // They are the pictures that the same folder's root names
    let again = build(&place, &cache).output().unwrap();
    assert!(again.status.success(), "{again:?}");
    assert_eq!(files(&cache).len(), kept);

    // And with nothing named it says what to give
    let nothing = Command::new(support::worker())
        .args(["cache", "build", "--cache"])
        .arg(&cache)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&nothing.stderr);
    assert!(
        !nothing.status.success() && told.contains("data.root"),
        "{told}"
    );
}
