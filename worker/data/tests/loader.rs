//! The loader: batches in order, the same for any number of threads, and what it does with bad pictures.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use data::augment::TrainTransform;
use data::coco::{DataPaths, Dataset, Options};
use data::files::OnBadImage;
use data::jpeg::decode;
use data::loader::{Batch, LoadError, Loader, LoaderOptions, Purpose, Request};
use data::scenes::{SceneSet, draw};
use data::transform::Resampler;
use std::num::NonZeroUsize;
use std::sync::Arc;

const SIZE: u32 = 24;

struct Given {
    _dir: tempfile::TempDir,
    dataset: Dataset,
}

fn drawn() -> Given {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("scenes");
    let set = SceneSet {
        train: 30,
        val: 12,
        seed: 11,
        scale: 0.1,
        threads: NonZeroUsize::new(2).unwrap(),
    };
    draw(&set, &root, &|_| ()).unwrap();
    let dataset = Dataset::open(&DataPaths::root(root), &Options::default()).unwrap();
    Given { _dir: dir, dataset }
}

impl Given {
    fn start(&self, threads: usize, prefetch: usize, on_bad_image: OnBadImage) -> Loader {
        let options = LoaderOptions {
            size: SIZE,
            seed: 5,
            train: TrainTransform::random_resized_crop(),
            flip: true,
            cache: None,
            pixels: Default::default(),
            on_bad_image,
            threads,
            prefetch,
        };
        self.start_with(options)
    }

    fn start_with(&self, options: LoaderOptions) -> Loader {
        let [train, val] = [&self.dataset.train, &self.dataset.val].map(|s| Arc::new(s.clone()));
        Loader::start(train, val, options).unwrap()
    }

    fn lose(&self, sample: u32) {
        std::fs::remove_file(self.dataset.train.image_path(sample).unwrap()).unwrap();
    }
}

fn request(tag: u64, purpose: Purpose, samples: &[u32]) -> Request {
    Request {
        tag,
        epoch: 3,
        purpose,
        samples: samples.to_vec(),
    }
}

/// Batches of several sizes and purposes, an empty one and a repeated sample among them.
fn requests() -> Vec<Request> {
    vec![
        request(9, Purpose::Train, &[3, 1, 29, 0, 7]),
        request(2, Purpose::Val, &[11, 0]),
        request(2, Purpose::TrainPlain, &[3, 1, 4]),
        request(5, Purpose::Train, &[]),
        request(6, Purpose::Train, &[8, 8, 2, 5, 6, 9, 10, 12]),
        request(7, Purpose::Val, &[1, 2, 3, 4, 5, 6]),
    ]
}

fn all(loader: &Loader) -> Vec<Result<Batch, LoadError>> {
    requests()
        .into_iter()
        .for_each(|request| loader.push(request));
    assert_eq!(loader.pending(), 6);
    std::iter::from_fn(|| loader.next()).collect()
}

#[test]
fn batches_come_in_the_order_of_their_requests_whatever_the_threads() {
    // given
    let given = drawn();
    let expected = all(&given.start(1, 1, OnBadImage::Error));
    // then
    for (batch, request) in expected.iter().zip(requests()) {
        let batch = batch.as_ref().unwrap();
        assert_eq!(
            (batch.tag, &batch.sample_ids),
            (request.tag, &request.samples)
        );
        let count = request.samples.len();
        assert_eq!(batch.pixels.len(), count * (SIZE * SIZE * 3) as usize);
        assert_eq!(batch.labels.len(), count * 80);
    }
    assert_eq!(expected.len(), 6);
    // when
    for (threads, prefetch) in [(0, 0), (0, 3), (1, 4), (2, 1), (2, 3), (4, 2), (4, 10)] {
        let loader = given.start(threads, prefetch, OnBadImage::Error);
        assert_eq!(
            all(&loader),
            expected,
            "{threads} threads, {prefetch} ahead"
        );
        assert_eq!(loader.pending(), 0);
        assert!(loader.next().is_none());
    }
}

#[test]
fn without_threads_nothing_is_decoded_before_it_is_asked_for_and_each_asker_takes_part() {
    // given batches that were pushed, and one picture that goes after that
    let given = drawn();
    let loader = given.start(0, 4, OnBadImage::Error);
    loader.push(request(1, Purpose::Train, &[3, 1]));
    loader.push(request(2, Purpose::Train, &[4]));
    loader.push(request(3, Purpose::Train, &[5]));
    given.lose(4);
    // when
    let tags = [(); 3].map(|()| loader.next().unwrap().map(|batch| batch.tag));
    // then it is missed, and nothing else is
    assert_eq!((&tags[0], &tags[2]), (&Ok(1), &Ok(3)));
    assert!(matches!(&tags[1], Err(LoadError::BadImage(bad)) if bad.sample == 4));
    assert!(loader.next().is_none());

    // and when several ask at once, each batch is handed out once
    for tag in 0..40 {
        loader.push(request(tag, Purpose::Train, &[6, 7, 8][..tag as usize % 4]));
    }
    let ask = || {
        let mut tags = Vec::new();
        while let Some(batch) = loader.next() {
            tags.push(batch.unwrap().tag);
        }
        tags
    };
    let mut tags: Vec<u64> = std::thread::scope(|scope| {
        let askers = [(); 3].map(|()| scope.spawn(ask));
        let tags = askers.into_iter().flat_map(|asker| asker.join().unwrap());
        tags.collect()
    });
    tags.sort_unstable();
    assert_eq!(tags, (0..40).collect::<Vec<_>>());
}

#[test]
fn a_sample_is_its_picture_cropped_as_drawn_for_seed_epoch_and_id_with_its_labels() {
    let given = drawn();
    let loader = given.start(2, 2, OnBadImage::Error);
    loader.push(request(0, Purpose::Train, &[4, 17]));

    let batch = loader.next().unwrap().unwrap();

    let rows = batch.pixels.chunks((SIZE * SIZE * 3) as usize);
    for ((pixels, labels), id) in rows.zip(batch.labels.chunks(80)).zip([4, 17]) {
        let path = given.dataset.train.image_path(id).unwrap();
        let image = decode(&std::fs::read(path).unwrap()).unwrap().0;
        let transform = TrainTransform::random_resized_crop();
        let placement = transform.draw(5, 3, id, image.width, image.height, SIZE);
        let mut expected = vec![0; pixels.len()];
        Resampler::new()
            .render(&image, &placement, SIZE, &mut expected)
            .unwrap();
        assert_eq!(pixels, expected);
        let shown: Vec<u16> = (0..80).filter(|&c| labels[usize::from(c)] == 1.0).collect();
        assert_eq!(shown, *given.dataset.train.samples[id as usize].labels);
        assert_eq!(labels.iter().sum::<f32>(), shown.len() as f32);
    }
}

#[test]
fn without_flips_no_picture_is_mirrored_and_crops_stay() {
    // given
    let given = drawn();
    let options = LoaderOptions {
        size: SIZE,
        seed: 5,
        train: TrainTransform::random_resized_crop(),
        flip: true,
        cache: None,
        pixels: Default::default(),
        on_bad_image: OnBadImage::Error,
        threads: 1,
        prefetch: 1,
    };
    let unmirrored = LoaderOptions {
        flip: false,
        ..options.clone()
    };
    let ids: Vec<u32> = (0..30).collect();
    let [with, without] = [options, unmirrored].map(|options| {
        let loader = given.start_with(options);
        loader.push(request(0, Purpose::Train, &ids));
        loader.next().unwrap().unwrap().pixels
    });
    // when
    let mut mirrored = 0;
    let pictures = |pixels: &[u8]| -> Vec<Vec<u8>> {
        let picture = (SIZE * SIZE * 3) as usize;
        pixels.chunks(picture).map(<[u8]>::to_vec).collect()
    };
    for (a, b) in pictures(&with).iter().zip(pictures(&without)) {
        if *a != b {
            let turned: Vec<u8> = b
                .chunks((SIZE * 3) as usize)
                .flat_map(|row| row.chunks(3).rev().flatten().copied())
                .collect();
            assert_eq!(*a, turned);
            mirrored += 1;
        }
    }
    // then
    assert!((5..=25).contains(&mirrored), "{mirrored} of 30");
}

#[test]
fn a_bad_picture_is_skipped_and_listed_with_pixels_and_labels_of_the_others_in_place() {
    // given
    let given = drawn();
    let whole = given.start(2, 2, OnBadImage::Error);
    whole.push(request(1, Purpose::TrainPlain, &[0, 2, 4]));
    let expected = whole.next().unwrap().unwrap();
    given.lose(1);
    std::fs::write(given.dataset.train.image_path(3).unwrap(), "\u{89}PNG").unwrap();
    // when
    let loader = given.start(2, 2, OnBadImage::Skip);
    loader.push(request(1, Purpose::TrainPlain, &[0, 1, 2, 3, 4]));
    let batch = loader.next().unwrap().unwrap();
    // then
    let skipped: Vec<(u32, u64)> = batch
        .skipped
        .iter()
        .map(|b| (b.sample, b.image_id))
        .collect();
    assert_eq!(skipped, [(1, 2), (3, 4)]);
    assert_eq!(batch.skipped[0].reason, "the file is missing");
    assert_eq!(
        batch,
        Batch {
            skipped: batch.skipped.clone(),
            ..expected
        }
    );
}

#[test]
fn a_bad_picture_is_an_error_that_names_it_and_the_batches_behind_still_come() {
    let given = drawn();
    given.lose(6);
    let loader = given.start(3, 2, OnBadImage::Error);
    for (tag, samples) in [(0, [5, 6, 7]), (1, [8, 9, 10])] {
        loader.push(request(tag, Purpose::Train, &samples));
    }

    let text = loader.next().unwrap().unwrap_err().to_string();

    assert!(
        text.contains("000000000007.jpg (image id 7): the file is missing")
            && text.contains("data.on_bad_image=skip"),
        "{text}"
    );
    assert_eq!(loader.next().unwrap().unwrap().sample_ids, [8, 9, 10]);
}

#[test]
fn a_sample_that_the_split_does_not_have_is_an_error_also_when_pictures_are_skipped() {
    let given = drawn();
    let loader = given.start(1, 1, OnBadImage::Skip);
    loader.push(request(0, Purpose::Val, &[11, 12]));

    let text = loader.next().unwrap().unwrap_err().to_string();

    assert_eq!(text, "sample id 12 is outside the val split of 12 samples");
}

#[test]
fn what_was_cleared_never_comes_and_what_is_pushed_next_does() {
    let given = drawn();
    let loader = given.start(4, 3, OnBadImage::Error);
    for round in 0..20 {
        requests()
            .into_iter()
            .for_each(|request| loader.push(request));
        loader.clear();
        assert_eq!(loader.pending(), 0);
        assert!(loader.next().is_none());

        loader.push(request(round, Purpose::Val, &[3]));
        let batch = loader.next().unwrap().unwrap();
        assert_eq!((batch.tag, batch.sample_ids), (round, vec![3]));
    }
}

#[test]
fn dropping_a_loader_ends_its_threads_with_work_left() {
    // given: every thread of a loader holds on to the splits
    let given = drawn();
    let split = Arc::new(given.dataset.train.clone());
    let options = LoaderOptions {
        size: 448,
        seed: 0,
        train: TrainTransform::None,
        flip: false,
        cache: None,
        pixels: Default::default(),
        on_bad_image: OnBadImage::Error,
        threads: 4,
        prefetch: 8,
    };
    let loader = Loader::start(Arc::clone(&split), Arc::clone(&split), options).unwrap();
    for tag in 0..100 {
        loader.push(request(tag, Purpose::Train, &[0, 1, 2, 3, 4, 5]));
    }
    assert!(Arc::strong_count(&split) > 1);

    // when
    drop(loader);

    // then
    assert_eq!(Arc::strong_count(&split), 1);
}
