//! Whole outputs, as a pipe gets them.

use std::path::{Path, PathBuf};

use data::coco::{Class, Dataset, Group, Sample, Split};
use domain::labels::Labels;
use domain::run_plan::RunPlan;
use domain::score_table::ScoreTable;
use proto::v1::{Phase, Status};

use super::figures::{percent, real, short};
use super::*;
use crate::checkpoint::Entry;
use crate::config::{Config, Sources};
use crate::evaluation::{Evaluated, Metrics, figures};
use crate::machine::{Machine, place};
use crate::run::Outcome;
use crate::summary::Summary;

/// Of a run of two epochs on two workers.
fn of_two_epochs() -> Config {
    let set = [
        "train.epochs=2",
        "train.global_batch=4",
        "train.micro_batch=2",
        "run.workers=2",
        "data.root=/data/coco",
    ];
    Config::load(&Sources {
        set: set.map(String::from).to_vec(),
        ..Sources::default()
    })
    .unwrap()
}

#[test]
fn a_run_from_its_opening_to_its_summary() {
    // Given a run of two epochs on two workers
    let config = of_two_epochs();
    let dataset = dataset();
    let plan = RunPlan::new(config.run_shape(&dataset), 2).unwrap();
    let machine = Machine {
        cpus: 2,
        cuda_devices: 0,
        omp_threads: None,
        bf16: true,
    };
    let placement = place(&config, &machine).unwrap();
    let opening = Opening {
        run_id: "3f2a91c0b7de",
        run_dir: Path::new("runs/demo"),
        address: "http://127.0.0.1:41233",
        config: &config,
        dataset: &dataset,
        placement: &placement,
        plan: &plan,
        resumed: None,
        workers_live: false,
    };

    // When it runs to its end
    let mut lines = opening.lines();
    let mut narrator = Narrator::new(2, plan.steps_per_epoch(), Some(0.375));
    for event in events() {
        for line in narrator.tell(&event) {
            match line {
                Line::Said(text) | Line::Progress(text) => lines.push(text),
                Line::Warning(text) => lines.push(labelled("warning", "33", false, &text)),
                Line::Bar { .. } => {}
            }
        }
    }
    let summary = Summary::new(
        &outcome(0, Phase::Finished),
        &dataset,
        plan.steps_per_epoch(),
        Some(0.41),
    );
    lines.extend(closing(&summary, Path::new("runs/demo"), true));

    // Then a pipe shows this
    insta::assert_snapshot!(lines.join("\n"));
    insta::assert_snapshot!("summary_json", format!("{:#}", summary.to_json()));
}

#[test]
fn a_run_that_waits_for_pictures_is_told_what_to_do_once_and_in_its_summary() {
    // given a narrator of a run of one long epoch
    let mut narrator = Narrator::new(1, 200, None);
    let mut warnings = |data_wait: f64, steps: std::ops::Range<u64>| {
        let tell = |step| RunEvent::Step {
            step,
            epoch: 0,
            loss: 0.5,
            images_per_second: 100.0,
            data_wait,
        };
        let lines = steps.flat_map(|step| narrator.tell(&tell(step)));
        lines
            .filter_map(|line| match line {
                Line::Warning(text) => Some(text),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    // when it waits a little, then much
    assert_eq!(warnings(0.04, 0..100), [""; 0]);
    let told = warnings(0.2, 100..200);
    // then
    assert_eq!(
        told,
        [
            "input-bound: 20.0 % of step time is spent waiting for pictures; keep decoded pictures with data.cache if they \
             are not yet, or, where processors are left, raise data.loader_threads (with any, data.prefetch helps too)"
        ]
    );
    let mut outcome = outcome(0, Phase::Finished);
    outcome.data_wait = Some(0.2);
    let lines = closing(
        &Summary::new(&outcome, &dataset(), 4, None),
        Path::new("runs/demo"),
        false,
    );
    assert!(
        lines.iter().any(|line| line.ends_with(&told[0])),
        "{lines:?}"
    );
}

#[test]
fn a_worker_beyond_those_wanted_is_told_as_a_spare() {
    let joined = |joined| {
        Narrator::new(1, 1, None).tell(&RunEvent::Joined {
            worker_id: "c".into(),
            host: "moon".into(),
            device: "cpu".into(),
            device_name: String::new(),
            joined,
            wanted: 2,
        })
    };
    let said = |text: &str| {
        vec![Line::Said(format!(
            "  c           joined from moon, cpu: {text}"
        ))]
    };
    assert_eq!(joined(2), said("2 of 2"));
    assert_eq!(joined(3), said("a spare beyond the 2 that are wanted"));
}

#[test]
fn numbers_that_would_be_rows_of_noughts_have_an_exponent() {
    let told = [0.1234, 1234.5, 1e38, f64::NAN].map(|number| real(number, 4));
    assert_eq!(told, ["0.1234", "1234.5000", "1.0000e38", "NaN"]);
    let told = [0.0, 0.01, 0.1, 1e38, 1e-9].map(short);
    assert_eq!(told, ["0", "0.01", "0.1", "1e38", "1e-9"]);
}

#[test]
fn a_run_whose_workers_live_is_resumed_with_them_and_not_said_to_be_at_its_checkpoint() {
    let config = of_two_epochs();
    let dataset = dataset();
    let plan = RunPlan::new(config.run_shape(&dataset), 2).unwrap();
    let machine = crate::machine::tests::machine(2, 0);
    let resuming = |resumed: Option<u64>, workers_live| {
        let opening = Opening {
            run_id: "3f2a91c0b7de",
            run_dir: Path::new("runs/demo"),
            address: "http://127.0.0.1:41233",
            config: &config,
            dataset: &dataset,
            placement: &place(&config, &machine).unwrap(),
            plan: &plan,
            resumed: resumed.map(|step| (step, "step-1".into())),
            workers_live,
        };
        let mut lines = opening.lines().into_iter();
        let line = lines.find(|line| line.starts_with("  resuming "));
        line.map(|line| line["  resuming    ".len()..].to_owned())
    };
    assert_eq!(resuming(None, false), None);
    assert_eq!(
        resuming(Some(1), false).unwrap(),
        "after 1 step from step-1"
    );
    assert_eq!(
        resuming(Some(12), true).unwrap(),
        "with the workers that live and what they have done by now; without them after 12 steps from step-1"
    );
    assert_eq!(resuming(None, true).unwrap(), "with the workers that live");
}

#[test]
fn a_best_epoch_without_a_checkpoint_is_told_beside_the_best_that_there_is() {
    // Given a run whose first epoch is its best by a tie, and the checkpoint of that was lost with who was sending it
    let mut outcome = outcome(0, Phase::Finished);
    outcome.checkpoints = vec![Entry {
        best: true,
        ..entry(4)
    }];
    let row = |outcome: &Outcome| {
        let summary = Summary::new(outcome, &dataset(), 2, None);
        let lines = closing(&summary, Path::new("runs/demo"), false);
        let best = lines.into_iter().find(|line| line.starts_with("  best "));
        (best, summary.to_json())
    };
    let (best, json) = row(&outcome);
    let map = percent(metrics().average_precision.map);
    assert_eq!(
        best.unwrap(),
        format!(
            "  best        /home/me/runs/demo/checkpoints/step-00000004 · mAP {map} of epoch 2: epoch 1, the best, has no \
             checkpoint"
        )
    );
    assert_eq!(
        (&json["best_epoch"], &json["best_checkpoint_epoch"]),
        (&1.into(), &2.into())
    );
    assert_eq!(json["best_has_checkpoint"], false);
    // With none that has a figure, that is all there is to say
    outcome.checkpoints = vec![Entry {
        map: None,
        ..entry(4)
    }];
    let (best, json) = row(&outcome);
    assert_eq!(
        best.unwrap(),
        "  best        epoch 1, the best, has no checkpoint"
    );
    assert_eq!(json["best_checkpoint"], serde_json::Value::Null);
}

#[test]
fn a_run_that_failed_says_why_and_how_to_go_on() {
    let mut outcome = outcome(75, Phase::Failed);
    outcome.reason = "worker-1 was killed by signal 9 at step 6 of 8".into();
    outcome.evaluations.clear();
    let summary = Summary::new(&outcome, &dataset(), 4, None);
    let mut lines = vec![last_words(&summary, &summary.reason)];
    lines.extend(closing(&summary, Path::new("runs/demo"), false));
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn what_was_told_when_it_came_is_not_told_again_when_the_run_ends_for_it() {
    let hung = "worker-1 (rank 1) hangs: nothing was heard from it for 2 s";
    let mut narrator = Narrator::new(2, 2, None);
    narrator.tell(&RunEvent::Warning(hung.into()));
    let mut outcome = outcome(75, Phase::Stopped);
    outcome.reason = format!("{hung}; fault.hangs allows none of this kind: look for the cause");
    let summary = Summary::new(&outcome, &dataset(), 4, None);

    let told = last_words(&summary, narrator.untold(&summary.reason));

    assert_eq!(
        told,
        "stopped: fault.hangs allows none of this kind: look for the cause"
    );
    // A reason that is nothing but a warning, or begins like one, is told whole.
    for whole in [hung.to_owned(), format!("{hung}, twice")] {
        assert_eq!(narrator.untold(&whole), whole);
    }
}

fn events() -> Vec<RunEvent> {
    let launched = |k: u32| RunEvent::Launched {
        worker_id: format!("worker-{k}"),
        pid: 4000 + k,
        device: "cpu".into(),
        log: format!("runs/demo/logs/worker-{k}.log").into(),
    };
    let joined = |k: u32| RunEvent::Joined {
        worker_id: format!("worker-{k}"),
        host: "moon".into(),
        device: "cpu".into(),
        device_name: "AMD EPYC 9755".into(),
        joined: k + 1,
        wanted: 2,
    };
    let step = |step: u64| RunEvent::Step {
        step,
        epoch: (step / 2) as u32,
        loss: 0.7 - 0.1 * step as f64,
        images_per_second: 431.4,
        data_wait: 0.021,
    };
    let evaluated = |epoch: u32| RunEvent::Evaluated {
        epoch,
        step: 2 * u64::from(epoch + 1),
        metrics: Box::new(metrics()),
        duration: Duration::from_millis(1234),
        best: epoch == 0,
    };
    let checkpoint = |step: u64| RunEvent::CheckpointCommitted {
        step,
        path: PathBuf::from(format!("/home/me/runs/demo/checkpoints/step-{step:08}")),
        bytes: 58_200_000,
    };
    let skipped = |sample| RunEvent::SampleSkipped {
        split: "train",
        sample,
        reason: format!("/data/coco/train2014/{sample}.jpg: ends early"),
    };
    let mut events = vec![launched(0), launched(1), joined(0), joined(1)];
    events.push(RunEvent::GenerationFormed {
        number: 1,
        members: vec!["worker-0".into(), "worker-1".into()],
        begins_at_step: 0,
        wanted: 2,
    });
    events.push(RunEvent::Ready {
        worker_id: "worker-0".into(),
        rank: 0,
        initial_state: "initial weights of seed 0".into(),
        parameters: 13_246_800,
    });
    events.extend([
        step(0),
        step(1),
        RunEvent::EvaluationBegan {
            epoch: 0,
            samples: 4,
        },
        evaluated(0),
        checkpoint(2),
    ]);
    events.extend((1..=7).map(skipped));
    events.extend([step(2), step(3), evaluated(1)]);
    events.push(RunEvent::CheckpointProblem {
        step: 4,
        problem: "/home/me: no space".into(),
    });
    // In the domain's words, and only in those
    let text = "no checkpoint of step 4, training goes on: /home/me: no space";
    events.push(RunEvent::Warning(text.into()));
    events.push(RunEvent::WorkerLog {
        worker_id: "worker-1".into(),
        lines: vec!["out of memory".into()],
    });
    events
}

fn outcome(exit_code: u8, phase: Phase) -> Outcome {
    let evaluated = |epoch: u32| Evaluated {
        step: 2 * u64::from(epoch + 1),
        epoch,
        generation: 1,
        seconds: 1.2,
        metrics: metrics(),
    };
    Outcome {
        exit_code,
        reason: "all 2 epochs are done".into(),
        status: Status {
            run_id: "3f2a91c0b7de".into(),
            phase: phase.into(),
            step: 4,
            total_steps: 4,
            epochs: 2,
            last_checkpoint: "/home/me/runs/demo/checkpoints/step-00000004".into(),
            best_checkpoint: "/home/me/runs/demo/checkpoints/step-00000002".into(),
            ..Status::default()
        },
        checkpoints: vec![entry(2), entry(4)],
        evaluations: vec![evaluated(0), evaluated(1)],
        epoch_losses: vec![(0, 0.65), (1, 0.45)],
        images: 16,
        data_wait: Some(0.034),
        training: Duration::from_secs(152),
    }
}

/// A checkpoint: the second is the last, the first the best.
fn entry(step: u64) -> Entry {
    Entry {
        step,
        generation: 1,
        path: format!("/home/me/runs/demo/checkpoints/step-{step:08}").into(),
        bytes: 58_200_000,
        map: metrics().average_precision.map,
        last: step == 4,
        best: step == 2,
    }
}

fn metrics() -> Metrics {
    let labels = Labels::from_lists(3, &[vec![0], vec![0, 1], vec![], vec![1]]).unwrap();
    let scores = [
        2.0, -1.0, -3.0, -0.5, 1.5, -2.0, 0.5, -1.0, -4.0, -1.0, -0.25, -5.0,
    ];
    let mut table = ScoreTable::new(4, 3);
    for (sample, row) in (0..).zip(scores.chunks(3)) {
        table.insert(sample, row).unwrap();
    }
    figures(&table.finish(&labels).unwrap(), Vec::new()).unwrap()
}

fn dataset() -> Dataset {
    let class = |name: &str, coco_id, group| Class {
        name: name.into(),
        coco_id,
        group,
    };
    let split = |name: &str, lists: &[&[u16]], unlabelled| Split {
        name: name.into(),
        annotation_file: format!("/data/coco/annotations/instances_{name}2014.json").into(),
        image_dir: format!("/data/coco/{name}2014").into(),
        num_classes: 3,
        samples: (0..)
            .zip(lists)
            .map(|(id, labels)| Sample {
                image_id: id,
                file_name: format!("{id}.jpg"),
                labels: (*labels).into(),
            })
            .collect(),
        unlabelled,
        dropped: 0,
        warnings: Vec::new(),
    };
    Dataset {
        classes: vec![
            class("person", 1, 0),
            class("cat", 17, 1),
            class("dog", 18, 1),
        ],
        groups: vec![
            Group {
                name: "person".into(),
                classes: vec![0],
            },
            Group {
                name: "animal".into(),
                classes: vec![1, 2],
            },
        ],
        train: split(
            "train",
            &[&[0], &[1], &[0, 1], &[2], &[], &[0], &[1], &[0]],
            1,
        ),
        val: split("val", &[&[0], &[0, 1], &[], &[1]], 1),
    }
}
