//! The cache of decoded pictures: the same batches with it as without, whatever happens to its files.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod given;

use data::augment::TrainTransform;
use data::cache::{Cache, build};
use data::coco::Split;
use data::files::OnBadImage;
use data::loader::{Batch, Loader, LoaderOptions, Purpose, Request};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const GIB: u64 = 1 << 30;

struct Given {
    dir: tempfile::TempDir,
    split: Arc<Split>,
    told: Arc<Mutex<Vec<String>>>,
}

impl Given {
    /// A split of four pictures of different kinds and sizes.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names = ["0.jpg", "1.jpg", "2.jpg", "3.jpg"];
        let split = Arc::new(given::split_of(dir.path(), &names));
        for (index, name) in names.iter().enumerate() {
            draw(&dir.path().join(name), index as u32);
        }
        Self {
            dir,
            split,
            told: Arc::default(),
        }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn cache(&self, limit: u64) -> Arc<Cache> {
        let told = Arc::clone(&self.told);
        let tell = move |text: &str| told.lock().unwrap().push(text.to_owned());
        Arc::new(Cache::open(&self.folder(), limit, tell).unwrap())
    }

    /// Three epochs of training and one of validation.
    fn batches(&self, cache: Option<Arc<Cache>>) -> Vec<Batch> {
        let options = LoaderOptions {
            size: 40,
            seed: 3,
            train: TrainTransform::multi_scale_crop(),
            flip: true,
            pixels: Default::default(),
            cache,
            on_bad_image: OnBadImage::Error,
            threads: 2,
            prefetch: 2,
        };
        let (train, val) = (Arc::clone(&self.split), Arc::clone(&self.split));
        let loader = Loader::start(train, val, options).unwrap();
        for tag in 0..4 {
            loader.push(Request {
                tag,
                epoch: tag,
                purpose: if tag == 3 {
                    Purpose::Val
                } else {
                    Purpose::Train
                },
                samples: vec![0, 1, 2, 3],
            });
        }
        std::iter::from_fn(|| loader.next())
            .map(Result::unwrap)
            .collect()
    }

    /// The files of cached pictures.
    fn entries(&self) -> Vec<PathBuf> {
        let folders = std::fs::read_dir(self.folder()).unwrap();
        let mut found: Vec<PathBuf> = folders
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .flat_map(|path| std::fs::read_dir(path).unwrap())
            .map(|entry| entry.unwrap().path())
            .collect();
        found.sort();
        found
    }

    /// Bytes of all cached pictures.
    fn held(&self) -> u64 {
        let entries = self.entries();
        entries.iter().map(|p| p.metadata().unwrap().len()).sum()
    }

    /// How many files are being written, or were left behind.
    fn parts(&self) -> usize {
        let entries = std::fs::read_dir(self.folder()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with("part-"))
            .count()
    }

    /// The bytes that all who share the cache believe it to hold.
    fn account(&self) -> u64 {
        let account = std::fs::read_to_string(self.folder().join("total")).unwrap();
        account.trim().parse().unwrap()
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

fn draw(path: &Path, seed: u32) {
    let (width, height) = (60 + 20 * seed as u16, 90 - 13 * seed as u16);
    let pixels: Vec<u8> = (0..u32::from(width) * u32::from(height) * 3)
        .map(|i| (i / 7 * (seed + 3) + i % 5 * 20) as u8)
        .collect();
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 90);
    encoder.set_progressive(seed == 2);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder
        .encode(&pixels, width, height, ColorType::Rgb)
        .unwrap();
    // One with harmless damage, which has to be counted each time.
    if seed == 1 {
        bytes.extend_from_slice(b"more");
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_cold_and_a_warm_cache_give_exactly_the_batches_of_none() {
    let given = Given::new();
    let without = given.batches(None);
    assert!(without.iter().all(|batch| batch.warnings == 1));
    let cold = given.batches(Some(given.cache(GIB)));
    assert_eq!(given.entries().len(), 4);
    // that it is read is seen by the pictures being gone
    let warm = given.cache(GIB);
    for index in 0..4 {
        let path = given.dir.path().join(format!("{index}.jpg"));
        let metadata = std::fs::metadata(&path).unwrap();
        // Only name, size and time of change are left of it.
        std::fs::write(&path, vec![0; metadata.len() as usize]).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(metadata.modified().unwrap()).unwrap();
    }
    let warm = given.batches(Some(warm));
    assert_eq!(cold, without);
    assert_eq!(warm, without);
    assert_eq!(given.told(), [""; 0]);
}

#[test]
fn damage_to_cached_pictures_is_said_once_and_costs_no_pixel_and_is_mended() {
    type Harm = fn(&mut Vec<u8>);
    let harms: [(&str, Harm); 5] = [
        ("ends early", |bytes| bytes.truncate(bytes.len() / 2)),
        ("ends early", |bytes| bytes.truncate(10)),
        ("ends early", Vec::clear),
        ("pixels do not match", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }),
        ("header does not match", |bytes| bytes[12] ^= 0x80),
    ];
    for (reason, harm) in harms {
        // given a full cache, all of whose pictures are harmed
        let given = Given::new();
        let without = given.batches(None);
        let cache = given.cache(GIB);
        given.batches(Some(Arc::clone(&cache)));
        let good: Vec<Vec<u8>> = given
            .entries()
            .iter()
            .map(|p| std::fs::read(p).unwrap())
            .collect();
        for path in given.entries() {
            let mut bytes = std::fs::read(&path).unwrap();
            harm(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
        }
        // when it is used on
        let after = given.batches(Some(cache));
        // then
        assert_eq!(after, without, "{reason}");
        let told = given.told();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].contains(reason) && told[0].contains(".jpg"),
            "{told:?}"
        );
        let mended: Vec<Vec<u8>> = given
            .entries()
            .iter()
            .map(|p| std::fs::read(p).unwrap())
            .collect();
        assert!(mended == good, "{reason}: not mended");
    }
}

#[test]
fn a_changed_picture_is_decoded_again_and_takes_the_place_of_the_old_one() {
    let given = Given::new();
    let cache = given.cache(GIB);
    given.batches(Some(Arc::clone(&cache)));
    // when another picture comes under an old name
    draw(&given.dir.path().join("0.jpg"), 3);
    let path = given.dir.path().join("0.jpg");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    file.set_modified(later).unwrap();
    // then
    assert_eq!(given.batches(Some(cache)), given.batches(None));
    assert_eq!(given.entries().len(), 4);
}

#[test]
fn a_cache_never_grows_beyond_its_limit_whoever_fills_it() {
    // given room for two pictures of four
    let given = Given::new();
    let limit = 2 * 60 * 90 * 3 + 5000;
    let without = given.batches(None);
    // when two fill it
    let caches = [given.cache(limit), given.cache(limit)];
    for cache in caches {
        assert_eq!(given.batches(Some(cache)), without);
    }
    // then
    let held: u64 = given
        .entries()
        .iter()
        .map(|p| p.metadata().unwrap().len())
        .sum();
    assert!(held <= limit && held > 0, "{held} of {limit}");
    assert_eq!(given.account(), held);
    let told = given.told();
    assert!(told.len() == 2 && told[0].contains("is full"), "{told:?}");
}

#[test]
fn fillers_at_the_same_time_agree_on_what_there_is_and_keep_within_the_limit() {
    let given = Given::new();
    let without = given.batches(None);
    let whole: u64 = {
        given.batches(Some(given.cache(GIB)));
        given.held()
    };
    for limit in [GIB, whole, 2 * 60 * 90 * 3 + 5000] {
        for _ in 0..10 {
            // when four fill an empty folder, each by a handle of its own, and one counts it all the while
            std::fs::remove_dir_all(given.folder()).unwrap();
            let caches = [(); 4].map(|()| given.cache(limit));
            let counting = given.cache(limit);
            let nothing = given::split_of(given.dir.path(), &[]);
            let fill = |cache: Arc<Cache>| given.batches(Some(cache)) == without;
            let fill = &fill;
            std::thread::scope(|scope| {
                let fillers = caches.map(|cache| scope.spawn(move || fill(cache)));
                while !fillers.iter().all(|filler| filler.is_finished()) {
                    build(&counting, &nothing, 1).unwrap();
                }
                assert!(fillers.into_iter().all(|filler| filler.join().unwrap()));
            });
            // then
            assert_eq!(given.account(), given.held());
            assert!(given.held() <= limit && given.held() > 0);
            assert!(limit < GIB || given.entries().len() == 4);
            assert_eq!(given.parts(), 0);
        }
    }
    let told = given.told();
    assert!(told.iter().all(|told| told.contains("is full")), "{told:?}");
}

#[test]
fn what_a_killed_process_left_is_no_picture_and_is_cleared_away() {
    // given a part whose writer is gone, one that is being written, and an account that was lost
    let given = Given::new();
    let cache = given.cache(GIB);
    given.batches(Some(cache));
    let (old, new) = (
        given.folder().join("part-1-0"),
        given.folder().join("part-2-0"),
    );
    for path in [&old, &new] {
        std::fs::write(path, "half a picture").unwrap();
    }
    let writer = std::fs::File::open(&new).unwrap();
    writer.lock().unwrap();
    std::fs::write(given.folder().join("total"), "").unwrap();
    // when
    let without = given.batches(None);
    assert_eq!(given.batches(Some(given.cache(GIB))), without);
    // then
    assert!(!old.exists() && new.exists());
    // and when that one's writer is gone too
    let (counted_with_it, part) = (given.account(), new.metadata().unwrap().len());
    drop(writer);
    given.cache(GIB);
    assert!(!new.exists());
    assert_eq!(given.account(), counted_with_it - part);
    let held: u64 = given
        .entries()
        .iter()
        .map(|p| p.metadata().unwrap().len())
        .sum();
    assert_eq!(given.account(), held);
}

#[test]
fn a_folder_that_cannot_be_written_costs_time_and_nothing_else() {
    let given = Given::new();
    let without = given.batches(None);
    let cache = given.cache(GIB);
    // Gone, and a file in its place: root may write anywhere else.
    std::fs::remove_dir_all(given.folder()).unwrap();
    std::fs::write(given.folder(), "").unwrap();
    assert_eq!(given.batches(Some(cache)), without);
    let told = given.told();
    assert!(!told.is_empty() && told.len() <= 2, "{told:?}");
}

#[test]
fn building_brings_in_every_picture_and_names_those_that_are_none() {
    // given
    let given = Given::new();
    std::fs::write(given.dir.path().join("1.jpg"), "<html>").unwrap();
    // when
    let built = build(&given.cache(GIB), &given.split, 3).unwrap();
    // then
    assert_eq!((built.pictures, built.bad.len()), (3, 1));
    assert!(
        built.bad[0].to_string().contains("a web page"),
        "{}",
        built.bad[0]
    );
    assert_eq!(given.entries().len(), 3);
    assert!(!built.incomplete && built.bytes > 0);
    let small = build(&given.cache(100), &given.split, 3).unwrap();
    assert!(
        small.pictures == 3 && !small.incomplete,
        "what is there needs no room"
    );
}
