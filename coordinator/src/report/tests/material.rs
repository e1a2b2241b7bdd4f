//! A run of two epochs, and the parts it is made of.

use std::collections::BTreeMap;

use data::coco::{Class, Dataset, Group, Sample, Split};
use domain::average_precision::MeanAveragePrecision;
use domain::ledger::Ledger;
use domain::multilabel::MultilabelFigures;
use domain::run_plan::RunShape;
use domain::shares::Shares;
use proto::v1::StepPoint;

use super::super::events::{Happening, History, Kind, WorkerSeen};
use super::super::mistakes::Worst;
use super::super::record::Record;
use super::super::*;
use crate::driver::smallest_config;
use crate::evaluation::kept::About;
use crate::evaluation::{Evaluated, Metrics, labels_of};
use crate::standing::Standing;

pub(super) fn point(step: u64) -> StepPoint {
    StepPoint {
        step,
        loss: 1.0 / (step + 1) as f64,
        learning_rate_head: 0.1,
        images_per_second: 50.0,
        learning_rate_trunk: 0.01,
        gradient_norm: 3.0 + (step % 3) as f64,
        data_wait_fraction: 0.25,
        samples: 4,
        unix_millis: 1_700_000_000_000 + 1000 * step,
    }
}

pub(super) fn evaluated(step: u64, epoch: u32, map: f64) -> Evaluated {
    let six = MultilabelFigures {
        cf1: Some(0.5),
        of1: Some(0.6),
        ..MultilabelFigures::default()
    };
    Evaluated {
        step,
        epoch,
        generation: 1,
        seconds: 0.5,
        metrics: Metrics {
            average_precision: MeanAveragePrecision {
                map: Some(map),
                per_class: vec![Some(0.9), Some(0.5), None, Some(map)],
                support: vec![6, 5, 0, 6],
                classes_without_positive: vec![2],
                samples: 12,
                chance_map: Some(0.4),
            },
            at_threshold: six,
            top3: six,
            skipped: Vec::new(),
            top3_at_threshold: None,
            calibration: None,
            best_thresholds: None,
            other_definitions: None,
            further: Vec::new(),
            train_gap: None,
        },
    }
}

pub(super) fn shape() -> RunShape {
    RunShape {
        samples: 40,
        val_samples: 12,
        epochs: 2,
        ..smallest_config().shape
    }
}

/// Twelve validation images of which no picture exists.
pub(super) fn dataset() -> Dataset {
    let classes = ["round", "square", "never", "small"]
        .iter()
        .zip([0, 0, 1, 1]);
    let classes = classes.zip(1u64..).map(|((name, group), coco_id)| Class {
        name: (*name).to_owned(),
        coco_id,
        group,
    });
    let group = |name: &str, classes: &[usize]| Group {
        name: name.to_owned(),
        classes: classes.to_vec(),
    };
    let split = |name: &str, samples: u32| Split {
        name: name.to_owned(),
        annotation_file: format!("/nowhere/{name}.json").into(),
        image_dir: "/nowhere".into(),
        num_classes: 4,
        samples: (0..samples)
            .map(|number| Sample {
                image_id: u64::from(number),
                file_name: format!("{number}.jpg"),
                labels: if number % 2 == 0 {
                    [0, 3].into()
                } else {
                    [1].into()
                },
            })
            .collect(),
        unlabelled: 0,
        dropped: 0,
        warnings: Vec::new(),
    };
    Dataset {
        classes: classes.collect(),
        groups: vec![group("shapes", &[0, 1]), group("rest", &[2, 3])],
        train: split("train", 40),
        val: split("val", 12),
    }
}

/// A run of two epochs that lost a worker at step 13 and did three steps again.
pub(super) fn material() -> Material {
    let mut ledger = Ledger::new();
    let member = || vec!["worker-0".to_owned()];
    ledger
        .begin_generation(1, 0, member(), Shares::even(1))
        .unwrap();
    ledger.commit_through(1, 12).unwrap();
    ledger
        .begin_generation(2, 10, member(), Shares::even(1))
        .unwrap();
    ledger.commit_through(2, 19).unwrap();
    let happening = |kind, step, text: &str| Happening {
        unix_millis: 1_700_000_000_000 + 1000 * step,
        step,
        kind,
        text: text.to_owned(),
    };
    let seen = WorkerSeen {
        host: "alpha".into(),
        device: "cpu".into(),
    };
    let dataset = dataset();
    let scores = KeptScores {
        about: About {
            version: 1,
            run_id: "abc".into(),
            step: 20,
            epoch: 2,
            annotations: String::new(),
            classes: Vec::new(),
            groups: Vec::new(),
        },
        sample_ids: (0..12).collect(),
        image_ids: (0..12).collect(),
        labels: labels_of(&dataset.val).unwrap(),
        logits: (0..48u32).map(|i| (i * 29 % 17) as f32 - 8.0).collect(),
        skipped: Vec::new(),
    };
    Material {
        worst: Worst::of(&scores, &dataset.val),
        scores: Ok(scores),
        record: Record {
            run_dir: "runs/a".into(),
            run_id: "abc".into(),
            standing: Standing::Ended(
                serde_json::json!({ "ended": "finished", "reason": "finished: 2 epochs" }),
            ),
            shape: shape(),
            steps_per_epoch: 10,
            ledger,
            steps: (0..20).map(point).collect(),
            evaluations: vec![evaluated(10, 0, 0.73), evaluated(20, 1, 0.61)],
            history: History {
                happenings: vec![
                    happening(Kind::Start, 0, "the run begins, with 1 worker wanted"),
                    happening(
                        Kind::Generation,
                        0,
                        "generation 1 with worker-0 begins from its seed",
                    ),
                    happening(
                        Kind::Checkpoint,
                        10,
                        "the checkpoint of step 10 is in place",
                    ),
                    happening(
                        Kind::Failure,
                        13,
                        "worker-1 was killed by signal 9 (SIGKILL)",
                    ),
                    happening(Kind::Generation, 10, "generation 2 with worker-0 begins"),
                    happening(Kind::End, 20, "finished: 2 epochs"),
                ],
                workers: BTreeMap::from([("worker-0".to_owned(), seen)]),
                parts: 1,
                began_unix_millis: Some(1_699_999_999_000),
                problem: None,
            },
            config: Err("it is not there".into()),
            dataset: Ok(dataset),
        },
    }
}
