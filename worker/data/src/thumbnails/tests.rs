use super::*;
use crate::coco::{DataPaths, Options};
use crate::scenes::{SceneSet, draw};
use std::num::NonZeroUsize;
use std::path::Path;

fn drawn(dir: &Path, train: usize, val: usize) -> Dataset {
    let set = SceneSet {
        train,
        val,
        seed: 7,
        scale: 0.2,
        threads: NonZeroUsize::new(2).unwrap(),
    };
    let dir = dir.join("scenes");
    draw(&set, &dir, &|_| ()).unwrap();
    Dataset::open(&DataPaths::root(dir), &Options::default()).unwrap()
}

/// Mean over the classes that are shown of the average precision; no scores are equal here.
fn map(scores: &[f32], split: &Split) -> f64 {
    let classes = split.num_classes;
    let precision = |class: usize| {
        let mut order: Vec<usize> = (0..split.samples.len()).collect();
        order.sort_by(|&a, &b| scores[b * classes + class].total_cmp(&scores[a * classes + class]));
        let (mut found, mut sum) = (0.0, 0.0);
        for (rank, sample) in order.into_iter().enumerate() {
            if split.samples[sample].labels.contains(&(class as u16)) {
                found += 1.0;
                sum += found / (rank + 1) as f64;
            }
        }
        (found > 0.0).then(|| sum / found)
    };
    let all: Vec<f64> = (0..classes).filter_map(precision).collect();
    all.iter().sum::<f64>() / all.len() as f64
}

#[test]
fn it_beats_chance_on_pictures_that_it_did_not_see_and_threads_do_not_show() {
    // given
    let dir = tempfile::tempdir().unwrap();
    let dataset = drawn(dir.path(), 500, 200);

    // when
    let one = linear_baseline(&dataset, 1).unwrap();
    let three = linear_baseline(&dataset, 3).unwrap();

    // then
    assert_eq!(one, three);
    let labels: usize = dataset.val.samples.iter().map(|s| s.labels.len()).sum();
    let chance = labels as f64 / (200 * dataset.classes.len()) as f64;
    let map = map(&one.scores, &dataset.val);
    assert!(map > 1.5 * chance, "mAP {map}, chance {chance}");
}

#[test]
fn unreadable_pictures_are_left_out_and_listed() {
    // given one lost picture in each split
    let dir = tempfile::tempdir().unwrap();
    let dataset = drawn(dir.path(), 90, 80);
    std::fs::remove_file(dataset.train.image_path(3).unwrap()).unwrap();
    std::fs::write(dataset.val.image_path(5).unwrap(), "<html>").unwrap();

    // when
    let scores = linear_baseline(&dataset, 2).unwrap();

    // then
    let [lost] = &*scores.skipped_train else {
        panic!("{:?}", scores.skipped_train)
    };
    assert_eq!((lost.sample, lost.image_id), (3, 4));
    let [odd] = &*scores.skipped_val else {
        panic!("{:?}", scores.skipped_val)
    };
    assert!(odd.to_string().contains("a web page"), "{odd}");
    let classes = dataset.classes.len();
    let rows: Vec<&[f32]> = scores.scores.chunks(classes).collect();
    assert_eq!(rows.len(), 80);
    assert!(rows[5].iter().all(|&score| score == 0.0));
    assert!(rows[6].iter().any(|&score| score != 0.0));
}

#[test]
fn without_a_single_training_picture_the_error_names_one() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = drawn(dir.path(), 2, 1);
    for sample in 0..2 {
        std::fs::remove_file(dataset.train.image_path(sample).unwrap()).unwrap();
    }

    let text = linear_baseline(&dataset, 1).unwrap_err().to_string();

    assert!(
        text.contains("none of the 2 training pictures") && text.contains("000000000001.jpg"),
        "{text}"
    );
}
