//! The report of a small run that is written here by hand.

use std::collections::BTreeMap;

use data::coco::{Class, Dataset, Group, Sample, Split};
use domain::average_precision::MeanAveragePrecision;
use domain::ledger::Ledger;
use domain::multilabel::MultilabelFigures;
use domain::run_plan::RunShape;
use domain::shares::Shares;
use proto::v1::StepPoint;

use super::attention::{GroupMap, Maps};
use super::events::{Happening, History, Kind, WorkerSeen};
use super::record::Standing;
use super::*;
use crate::evaluation::kept::About;
use crate::evaluation::{Evaluated, Metrics, labels_of};
use crate::store::{Resume, Store};

/// What nobody should be able to put into a page.
const HOSTILE: &str = "<script>alert(\"1\")</script>&'x";

#[test]
fn the_page_shows_what_was_reached_and_needs_nothing_from_elsewhere() {
    let material = material();
    let page = page::page(&material, &Attention::NotInModel);

    for part in [
        "61.00 %",
        "after epoch 2, the model that the run ends with",
        "73.00 %",
        "a selected figure: the highest of 2 evaluations",
        "2.00 of 2 epochs, 20 of 20 steps",
        "finished: 2 epochs",
        "cpu on alpha",
        "This variant has no attention",
        "worker-1 was killed by signal 9 (SIGKILL)",
        "3 steps became void",
    ] {
        assert!(page.contains(part), "{part} is not in the page");
    }
    // Loss, validation, rates, norm, two of precision and recall, speed, waiting
    assert_eq!(page.matches("<svg class=\"plot\"").count(), 8);
    assert_eq!(page.matches("role=\"img\" aria-label=").count(), 8);
    // A bar a class, and one class without a positive
    assert_eq!(page.matches("<i style=\"--w:").count(), 3);
    for fetched in [
        "<script",
        "<link",
        "src=\"http",
        "url(",
        "@import",
        "<iframe",
    ] {
        assert!(!page.contains(fetched), "the page has {fetched}");
    }
    let without_namespace = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    assert!(!without_namespace.contains("http://") && !without_namespace.contains("https://"));
    // Every colour is the style sheet's, so that the page follows light and dark.
    let (_, drawn) = page.split_once("</style>").unwrap();
    assert!(!drawn.contains("=\"#0"), "a plot has a colour of its own");
    assert!(page.len() < 200_000, "{} bytes", page.len());
}

#[test]
fn names_from_outside_are_text_wherever_they_appear() {
    // Given a data set, workers, reasons and pictures named by an enemy
    let mut material = material();
    let record = &mut material.record;
    let dataset = record.dataset.as_mut().unwrap();
    dataset
        .classes
        .iter_mut()
        .for_each(|class| class.name = HOSTILE.into());
    dataset
        .groups
        .iter_mut()
        .for_each(|group| group.name = HOSTILE.into());
    dataset
        .val
        .samples
        .iter_mut()
        .for_each(|sample| sample.file_name = HOSTILE.into());
    dataset.val.annotation_file = HOSTILE.into();
    record.run_id = HOSTILE.into();
    record.run_dir = HOSTILE.into();
    record.config = Err(HOSTILE.into());
    record.standing = Standing::Ended(serde_json::json!({ "ended": HOSTILE, "reason": HOSTILE }));
    record
        .history
        .workers
        .values_mut()
        .for_each(|seen| seen.host = HOSTILE.into());
    record.history.problem = Some(HOSTILE.into());
    record
        .history
        .happenings
        .iter_mut()
        .for_each(|one| one.text = HOSTILE.into());
    let dataset = record.dataset.as_ref().unwrap();
    material.worst = Worst::of(material.scores.as_ref().unwrap(), &dataset.val);
    let group = GroupMap {
        name: HOSTILE.into(),
        classes: vec![HOSTILE.into(), HOSTILE.into()],
        within: vec![vec![0.5; 2]; 2],
    };
    let maps = Maps {
        step: 20,
        pictures: 3,
        groups: vec![group.clone(), group],
        between: vec![vec![0.25, 0.75]; 2],
    };

    for attention in [
        Attention::Measured(maps),
        Attention::Missing(HOSTILE.into()),
    ] {
        let page = page::page(&material, &attention);
        assert!(!page.contains("<script"), "a name became a tag");
        assert!(
            !page.contains("alert(\"1\")"),
            "a name could leave an attribute"
        );
        assert!(page.matches("&lt;script&gt;").count() > 20);
    }
}

#[test]
fn attention_is_shown_in_percent_or_else_why_it_is_missing() {
    let material = material();
    let maps = Maps {
        step: 20,
        pictures: 3,
        groups: vec![
            GroupMap {
                name: "shapes".into(),
                classes: vec!["a".into(), "b".into()],
                within: vec![vec![0.125, 0.875], vec![0.5, 0.5]],
            },
            GroupMap {
                name: "alone".into(),
                classes: vec!["c".into()],
                within: vec![vec![1.0]],
            },
        ],
        between: vec![vec![0.25, 0.75], vec![1.0, 0.0]],
    };
    let page_with = page::page(&material, &Attention::Measured(maps));
    assert!(page_with.contains("mean over 3 validation images"));
    assert_eq!(page_with.matches("<table class=\"heat\"").count(), 2);
    assert!(
        page_with.contains("<td style=\"--w:80\">88</td>"),
        "the highest share is the deepest"
    );
    assert!(page_with.contains("Groups of one class have nothing to attend to: alone"));

    let page_without = page::page(&material, &Attention::Missing("the worker was away".into()));
    assert!(page_without.contains("The attention was not measured: the worker was away."));
}

#[test]
fn a_run_that_has_only_begun_has_a_page_too() {
    let mut material = material();
    material.record.steps.clear();
    material.record.evaluations.clear();
    material.record.ledger = Ledger::new();
    material.record.standing = Standing::UnderWay;
    material.record.history = History::default();
    material.scores = Err("nothing was evaluated".into());

    let page = page::page(
        &material,
        &Attention::Missing("there is no checkpoint yet".into()),
    );

    for part in [
        "under way",
        "No step is committed yet",
        "nothing is evaluated yet",
        "No times were recorded",
    ] {
        assert!(page.contains(part), "{part} is not in the page");
    }
    assert!(
        !page.contains("NaN") && !page.contains("inf"),
        "a figure of nothing is shown"
    );
}

#[tokio::test]
async fn after_a_resume_every_step_is_there_once_as_it_was_committed() {
    // Given ten steps of a first generation and their evaluation, of which a second one does two of the last four again
    // before its coordinator is killed
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (store, _) = Store::open(&path.join("run.redb"), "abc", Resume::At(0)).unwrap();
    store.shape(shape());
    let mut ledger = Ledger::new();
    let begin = |ledger: &mut Ledger, number, at| {
        ledger
            .begin_generation(number, at, vec!["worker-0".into()], Shares::even(1))
            .unwrap();
    };
    begin(&mut ledger, 1, 0);
    store.begin_generation(1, &ledger).await.unwrap();
    for step in 0..10 {
        ledger.commit_through(1, step).unwrap();
        store.step(StepPoint {
            loss: 1.0,
            ..point(step)
        });
    }
    store.evaluation(&evaluated(10, 0, 0.5));
    begin(&mut ledger, 2, 6);
    store.void_from(6);
    store.begin_generation(2, &ledger).await.unwrap();
    for step in 6..8 {
        ledger.commit_through(2, step).unwrap();
        store.step(StepPoint {
            loss: 2.0,
            ..point(step)
        });
    }
    store.ledger(&ledger);
    store.flush().await.unwrap();
    // The coordinator is killed: it says nothing of an end.
    drop(store);

    let dataset = dataset();
    let material = Material::gather(path, Some(&dataset)).unwrap();
    material.write(&Attention::NotInModel).unwrap();
    material.write(&Attention::NotInModel).unwrap();

    // Then
    assert_eq!(material.record.standing, Standing::CutOff);
    let rows = std::fs::read_to_string(path.join("history.csv")).unwrap();
    let cells = |row: &str| row.split(',').map(str::to_owned).collect::<Vec<_>>();
    let steps: Vec<_> = rows
        .lines()
        .skip(1)
        .map(|row| (cells(row)[0].clone(), cells(row)[3].clone()))
        .collect();
    let expected: Vec<_> = (0..8)
        .map(|step| {
            (
                step.to_string(),
                if step < 6 { "1" } else { "2" }.to_owned(),
            )
        })
        .collect();
    assert_eq!(steps, expected);
    let rows = std::fs::read_to_string(path.join("evaluations.csv")).unwrap();
    assert_eq!(
        rows.lines().count(),
        1,
        "the evaluation is of a void state: {rows}"
    );
    // One event file, and in it each step once, in order; the two before are the version and the session's start
    let files: Vec<_> = std::fs::read_dir(path.join("tb"))
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(files.len(), 1);
    let steps = tensorboard::steps(&std::fs::read(files[0].path()).unwrap());
    assert_eq!(steps, [0, 0, 0, 1, 2, 3, 4, 5, 6, 7]);
    let page = std::fs::read_to_string(path.join("report.html")).unwrap();
    assert!(
        page.contains("4 steps became void"),
        "the page says what was done again"
    );
    assert!(page.contains("cut off"));
}

fn point(step: u64) -> StepPoint {
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

fn evaluated(step: u64, epoch: u32, map: f64) -> Evaluated {
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

fn shape() -> RunShape {
    RunShape {
        seed: 0,
        samples: 40,
        val_samples: 12,
        global_batch: 4,
        micro_batch: 2,
        epochs: 2,
        evaluate_every_epochs: 1,
        snapshot_every_steps: None,
        snapshot_every_epochs: Some(1),
        further_rows: 0,
        early_stopping: None,
    }
}

/// Twelve validation images of which no picture exists.
fn dataset() -> Dataset {
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
fn material() -> Material {
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
