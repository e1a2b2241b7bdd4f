//! Odd inputs with known right outcomes: average precision, and the plans of tiny splits. The files
//! are read from `HGAT_TEST_CASES`.
// The crate's bans are on its decisions; a test has to find and read its inputs.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::path::PathBuf;

use domain::assignment::Assignment;
use domain::average_precision::{MeanAveragePrecision, mean_average_precision};
use domain::labels::Labels;
use domain::ledger::{EpochState, Ledger};
use domain::plan::PlanError;
use domain::run_plan::{RunPlan, RunShape};
use domain::score_table::{Inserted, ScoreTable};
use domain::scores::{Layout, ScoreMatrix};
use domain::shares::Shares;
use serde_json::Value;

#[test]
fn equal_scores_are_one_threshold() {
    let Some(cases) = cases() else { return };
    check_every_variant(&cases.join("AP-01-ties"));
}

#[test]
fn a_class_without_a_positive_is_left_out_and_one_of_positives_alone_is_1() {
    let Some(cases) = cases() else { return };
    check_every_variant(&cases.join("AP-02-no-positive-all-positive"));
}

#[test]
fn samples_that_arrive_from_two_ranks_count_once() {
    let Some(cases) = cases() else { return };
    let folder = cases.join("AP-03-padding-and-per-rank-means");
    let expected = &read_json(&folder.join("expected.json"))["variants"]["four_ranks"];

    // Given the split's 13 samples by their ids, and the chunks of four padded ranks
    let chunks: Vec<Scores> = expected["path"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| Scores::from_json(&read_json(&folder.join(path.as_str().unwrap()))))
        .collect();
    let mut split: Vec<i64> = chunks.iter().flat_map(|chunk| chunk.ids.clone()).collect();
    split.sort_unstable();
    split.dedup();
    assert_eq!(split.len(), 13);
    let position = |id: &i64| u32::try_from(split.binary_search(id).unwrap()).unwrap();

    // When they are gathered, the ranks one after another
    let mut table = ScoreTable::new(13, 3);
    let mut labels = Labels::new(13, 3);
    let mut repeated = Vec::new();
    for chunk in &chunks {
        for (at, id) in chunk.ids.iter().enumerate() {
            let sample = position(id);
            if table
                .insert(sample, &chunk.scores[3 * at..3 * at + 3])
                .unwrap()
                == Inserted::Repeated
            {
                repeated.push(*id);
            }
            for &class in &chunk.positives[at] {
                labels.insert(sample, class).unwrap();
            }
        }
    }

    // Then the repeated samples count once
    assert_eq!(repeated, [100, 103, 106]);
    let scored = table.finish(&labels).unwrap();
    let figures = mean_average_precision(&scored.matrix(), scored.labels()).unwrap();
    assert_eq!(figures.samples, 13);
    check("four_ranks", &figures, expected);
}

#[test]
fn it_is_the_step_sum_and_none_of_the_other_definitions() {
    let Some(cases) = cases() else { return };
    check_every_variant(&cases.join("AP-04-other-definitions"));
}

#[test]
fn no_slice_of_one_sample_is_ever_planned() {
    let Some(cases) = cases() else { return };
    let expected = read_json(&cases.join("TRN-01-slice-of-one/expected.json"));
    for (name, variant) in expected["variants"].as_object().unwrap() {
        let run = &variant["run"];
        let [samples, global_batch, workers, epochs] =
            ["train_images", "global_batch", "workers", "epochs"]
                .map(|key| u32::try_from(run[key].as_u64().unwrap()).unwrap());
        // Given every way to cut the global batch
        for micro_batch in (1..=global_batch).filter(|micro| global_batch.is_multiple_of(*micro)) {
            let shape = RunShape {
                samples,
                global_batch,
                micro_batch,
                epochs,
                ..tiny()
            };
            match RunPlan::new(shape, workers) {
                // Then it is planned away
                Ok(plan) => {
                    for rank in 0..workers {
                        let steps = plan
                            .rank_steps(0..plan.total_steps(), rank, &Assignment::even(workers))
                            .unwrap();
                        for batch in steps.iter().flat_map(|step| &step.micro_batches) {
                            assert!(batch.sample_ids.len() >= 2, "{name}: {batch:?}");
                        }
                    }
                }
                // or refused, naming global batch, workers, step and slice
                Err(error) => {
                    assert_eq!(micro_batch, 1, "{name}: {error}");
                    assert!(
                        matches!(error, PlanError::MicroBatchOfOne { .. }),
                        "{name}: {error}"
                    );
                    let text = error.to_string();
                    for part in [
                        format!("train.global_batch = {global_batch}"),
                        format!("workers = {workers}"),
                        "step 0".to_owned(),
                        "slice of one sample".to_owned(),
                    ] {
                        assert!(text.contains(&part), "{name}: {text} lacks {part}");
                    }
                }
            }
        }
    }
}

/// The scenario TRN-04: needs no file.
#[test]
fn three_epochs_have_three_orders_which_the_seed_alone_decides() {
    // Given a run of three epochs over 600 samples, seen by one, three and eight workers
    let shape = RunShape {
        samples: 600,
        epochs: 3,
        ..tiny()
    };
    let orders = |seed: u64, workers: u32| -> Vec<Vec<u32>> {
        let plan = RunPlan::new(RunShape { seed, ..shape }, workers).unwrap();
        let by_rank: Vec<_> = (0..workers)
            .map(|rank| {
                plan.rank_steps(0..plan.total_steps(), rank, &Assignment::even(workers))
                    .unwrap()
            })
            .collect();
        (0..3)
            .map(|epoch| {
                let steps = (0..by_rank[0].len()).filter(|&at| by_rank[0][at].epoch == epoch);
                steps
                    .flat_map(|at| by_rank.iter().flat_map(move |rank| &rank[at].micro_batches))
                    .flat_map(|batch| batch.sample_ids.clone())
                    .collect()
            })
            .collect()
    };
    let alone = orders(11, 1);

    // Then each epoch is a permutation of the split, and no two are the same
    for order in &alone {
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..600));
    }
    assert!(alone[0] != alone[1] && alone[1] != alone[2] && alone[0] != alone[2]);
    // and the same seed gives the same three at every world size, another seed others
    assert_eq!(orders(11, 1), alone);
    assert_eq!(orders(11, 3), alone);
    assert_eq!(orders(11, 8), alone);
    assert!(
        orders(12, 1)
            .iter()
            .zip(&alone)
            .all(|(here, there)| here != there)
    );
    // and the ledger of the three epochs holds each sample once an epoch
    let plan = RunPlan::new(RunShape { seed: 11, ..shape }, 3).unwrap();
    let mut ledger = Ledger::new();
    ledger
        .begin_generation(
            1,
            0,
            vec!["a".into(), "b".into(), "c".into()],
            Shares::even(3),
        )
        .unwrap();
    ledger.commit_through(1, plan.total_steps() - 1).unwrap();
    let verification = ledger.verify(&plan);
    assert_eq!(verification.epochs.len(), 3);
    assert!(
        verification
            .epochs
            .iter()
            .all(|epoch| epoch.state == EpochState::Complete)
    );
}

fn tiny() -> RunShape {
    RunShape {
        seed: 0,
        samples: 5,
        val_samples: 4,
        further_rows: 0,
        early_stopping: None,
        global_batch: 8,
        micro_batch: 2,
        epochs: 1,
        evaluate_every_epochs: 1,
        snapshot_every_steps: None,
        snapshot_every_epochs: None,
    }
}

fn cases() -> Option<PathBuf> {
    let cases = std::env::var_os("HGAT_TEST_CASES").map(PathBuf::from);
    if cases.is_none() {
        println!("skipped: HGAT_TEST_CASES is not set, so there are no cases to read");
    }
    cases
}

/// Scores as a case holds them, sample-major.
struct Scores {
    ids: Vec<i64>,
    classes: u32,
    scores: Vec<f32>,
    positives: Vec<Vec<u32>>,
}

impl Scores {
    fn from_json(json: &Value) -> Self {
        let rows = |key: &str| json[key].as_array().unwrap().iter();
        let row = |row: &Value| row.as_array().unwrap().clone();
        let positives = rows("targets")
            .map(|targets| {
                (0u32..)
                    .zip(row(targets))
                    .filter(|(_, target)| target.as_u64() == Some(1))
                    .map(|(class, _)| class)
                    .collect()
            })
            .collect();
        Self {
            ids: rows("sample_ids").map(|id| id.as_i64().unwrap()).collect(),
            classes: u32::try_from(row(&json["scores"][0]).len()).unwrap(),
            scores: rows("scores")
                .flat_map(row)
                .map(|x| x.as_f64().unwrap() as f32)
                .collect(),
            positives,
        }
    }

    fn from_safetensors(bytes: &[u8]) -> Self {
        let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
        let [ids, scores, targets] =
            ["sample_ids", "scores", "targets"].map(|name| file.tensor(name).unwrap());
        let classes = scores.shape()[1];
        let positives = targets
            .data()
            .chunks(classes)
            .map(|row| {
                (0u32..)
                    .zip(row)
                    .filter(|(_, x)| **x == 1)
                    .map(|(c, _)| c)
                    .collect()
            })
            .collect();
        Self {
            ids: ids
                .data()
                .chunks(8)
                .map(|x| i64::from_le_bytes(x.try_into().unwrap()))
                .collect(),
            classes: u32::try_from(classes).unwrap(),
            scores: scores
                .data()
                .chunks(4)
                .map(|x| f32::from_le_bytes(x.try_into().unwrap()))
                .collect(),
            positives,
        }
    }

    fn figures(&self) -> MeanAveragePrecision {
        let samples = u32::try_from(self.ids.len()).unwrap();
        let matrix =
            ScoreMatrix::new(&self.scores, samples, self.classes, Layout::SampleMajor).unwrap();
        let labels = Labels::from_lists(self.classes, &self.positives).unwrap();
        mean_average_precision(&matrix, &labels).unwrap()
    }
}

/// Every variant of a case whose variants are single score files.
fn check_every_variant(folder: &std::path::Path) {
    let expected = read_json(&folder.join("expected.json"));
    let variants = expected["variants"].as_object().unwrap();
    assert!(!variants.is_empty());
    for (name, variant) in variants {
        let path = folder.join(variant["path"].as_str().unwrap());
        let scores = match variant["kind"].as_str().unwrap() {
            "scores" => Scores::from_json(&read_json(&path)),
            "scores_safetensors" => Scores::from_safetensors(&std::fs::read(&path).unwrap()),
            kind => panic!("{name} is of an unknown kind {kind}"),
        };
        check(name, &scores.figures(), variant);
    }
}

/// Figures against an `expected.json` entry: fractions within its tolerance, none of its mistakes.
fn check(name: &str, figures: &MeanAveragePrecision, expected: &Value) {
    let tolerance = expected["tolerance"].as_f64().unwrap();
    let close = |what: &str, found: Option<f64>, expected: Option<f64>| match (found, expected) {
        (Some(found), Some(expected)) => {
            assert!(
                (found - expected).abs() <= tolerance,
                "{name}, {what}: {found} not {expected}"
            );
        }
        (found, expected) => assert_eq!(found, expected, "{name}, {what}"),
    };
    close("mAP", figures.map, number(&expected["map"]));
    let per_class = expected["ap"].as_array().unwrap();
    assert_eq!(figures.per_class.len(), per_class.len(), "{name}");
    for (class, ap) in per_class.iter().enumerate() {
        close(
            &format!("class {class}"),
            figures.per_class[class],
            number(ap),
        );
    }
    if let Some(without) = expected["classes_without_positive"].as_array() {
        let without: Vec<u64> = without
            .iter()
            .map(|class| class.as_u64().unwrap())
            .collect();
        let found: Vec<u64> = figures
            .classes_without_positive
            .iter()
            .map(|&class| class.into())
            .collect();
        assert_eq!(found, without, "{name}");
    }
    for (mistake, value) in expected["wrong"].as_object().into_iter().flatten() {
        let off = (figures.map.unwrap() - value.as_f64().unwrap()).abs();
        assert!(off > 1e-10, "{name} gives the value of {mistake}");
    }
}

/// A plain number, a `{fraction, float}`, or null.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value["float"].as_f64())
}

fn read_json(path: &std::path::Path) -> Value {
    let text = std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}
