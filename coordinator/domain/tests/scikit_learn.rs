//! Figures against scikit-learn's own, on random scores with ties, classes without a positive and
//! classes of positives alone. What scikit-learn lacks (average precision by other definitions, ML-GCN's
//! top 3) is written out in NumPy from the definition. Runs the Python that `HGAT_PYTHON` names (else `python3`).
// The crate's bans are on its decisions; a test has to run its peer.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use domain::average_precision::mean_average_precision;
use domain::calibration::calibration;
use domain::labels::Labels;
use domain::multilabel::{MultilabelFigures, at_threshold, top_k, top_k_at_threshold};
use domain::other_definitions::other_definitions;
use domain::scores::{Layout, ScoreMatrix};
use domain::thresholds::{Threshold, best_thresholds};
use serde_json::{Value, json};

const SCRIPT: &str = r#"
import json, sys, warnings
import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.metrics import (average_precision_score, brier_score_loss, precision_recall_curve,
                             precision_recall_fscore_support)
warnings.simplefilter("ignore")
def answer(case):
    scores = np.array(case["scores"], dtype=np.float32).reshape(case["samples"], case["classes"])
    targets = np.array(case["targets"], dtype=np.int64).reshape(scores.shape)
    shown = targets.sum(0) > 0

    def six(predicted):
        # One class at a time, or all decisions as one: a matrix of one column would read as two classes.
        of_class = [precision_recall_fscore_support(
            targets[:, c], predicted[:, c], average="binary", zero_division=0)[:2]
            for c in np.flatnonzero(shown)]
        cp, cr = np.mean(of_class, axis=0)
        op, orr, of1, _ = precision_recall_fscore_support(
            targets.ravel(), predicted.ravel(), average="binary", zero_division=0)
        f1 = [precision_recall_fscore_support(
            targets[:, c], predicted[:, c], average="binary", zero_division=0)[2] for c in np.flatnonzero(shown)]
        return [cp, cr, 2 * cp * cr / (cp + cr), op, orr, of1, float(np.mean(f1))]

    def best_f1(target, score):
        precision, recall, threshold = precision_recall_curve(target, score)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
        f1 = f1[:-1]  # the last point has no threshold
        best = len(f1) - 1 - np.argmax(np.round(f1[::-1], 14))  # of equals the highest threshold
        return [float(f1[best]), float(threshold[best])]

    def eleven_point(target, score):
        precision, recall, _ = precision_recall_curve(target, score)
        # The point that scikit-learn adds at recall 0 has precision 1 and belongs to no threshold.
        precision, found = precision[:-1], np.rint(recall[:-1] * target.sum()).astype(int)
        return float(sum(precision[10 * found >= t * target.sum()].max() for t in range(11)) / 11)

    def every_point(target, score):
        precision, recall, _ = precision_recall_curve(target, score)
        precision, recall = precision[:-1][::-1], recall[:-1][::-1]
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        return float(np.sum(np.diff(np.concatenate([[0], recall])) * envelope))

    def epsilon(target, score):
        hit = target[score.argsort(kind="stable")[::-1]]
        precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
        return float(precision[hit == 1].sum() / (hit.sum() + 1e-8))

    columns = [(targets[:, c], scores[:, c]) for c in range(scores.shape[1])]
    p = 1 / (1 + np.exp(-scores.astype(np.float64)))
    true, predicted = calibration_curve(targets.ravel(), p.ravel(), n_bins=15)
    counts = np.bincount(np.searchsorted(np.linspace(0, 1, 16)[1:-1], p.ravel()), minlength=15)
    ece = np.sum(counts[counts > 0] * np.abs(true - predicted)) / p.size

    top = np.argsort(-scores, axis=1, kind="stable")[:, :3]
    in_top = np.zeros_like(targets)
    np.put_along_axis(in_top, top, 1, axis=1)
    each = lambda figure: [figure(t, s) if t.sum() else None for t, s in columns]
    ap = [float(average_precision_score(targets[:, c], scores[:, c])) if shown[c] else None
          for c in range(scores.shape[1])]
    return {"ap": ap, "map": float(np.mean([x for x in ap if x is not None])),
            "half": six((scores >= 0).astype(int)), "top": six(in_top),
            "top_half": six(in_top * (scores >= 0)),
            "ece": float(ece), "brier": float(brier_score_loss(targets.ravel(), p.ravel())),
            "best_f1": best_f1(targets.ravel(), scores.ravel()), "class_best_f1": each(best_f1),
            "eleven_point": each(eleven_point), "every_point": each(every_point),
            "epsilon": [epsilon(t, s) for t, s in columns]}

json.dump([answer(case) for case in json.load(sys.stdin)], sys.stdout)
"#;

#[test]
fn continuous_scores() {
    against_scikit_learn(0);
}

#[test]
fn scores_with_many_ties() {
    against_scikit_learn(1);
}

#[test]
fn scores_with_zeros_of_both_signs() {
    against_scikit_learn(2);
}

#[test]
fn a_single_class() {
    against_scikit_learn(3);
}

fn cases() -> [Case; 4] {
    [
        random(1, 2000, 20, |word| (word >> 40) as f32 / 1e6 - 8.0),
        random(2, 1500, 20, |word| (word >> 60) as f32 - 7.0),
        random(3, 300, 6, |word| {
            [0.0, -0.0, 1.0, -1.0][(word >> 62) as usize]
        }),
        random(4, 100, 1, |word| (word >> 58) as f32 - 30.0),
    ]
}

struct Case {
    samples: u32,
    classes: u32,
    scores: Vec<f32>,
    positives: Vec<Vec<u32>>,
}

impl Case {
    fn to_json(&self) -> Value {
        let targets: Vec<u8> = self
            .positives
            .iter()
            .flat_map(|list| (0..self.classes).map(|class| u8::from(list.contains(&class))))
            .collect();
        json!({
            "samples": self.samples,
            "classes": self.classes,
            "scores": self.scores,
            "targets": targets,
        })
    }
}

/// Scores by `score` of random words. Class 1 (if there is one) is shown by no sample, class 2 by
/// all, the others ever more rarely.
fn random(seed: u64, samples: u32, classes: u32, score: impl Fn(u64) -> f32) -> Case {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let word = state;
        (word ^ (word >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD)
    };
    let scores = (0..samples * classes).map(|_| score(next())).collect();
    let positives = (0..samples)
        .map(|_| {
            (0..classes)
                .filter(|&class| match class {
                    1 => false,
                    2 => true,
                    class => next() >> 32 < (1 << 31) / u64::from(class + 1),
                })
                .collect()
        })
        .collect();
    Case {
        samples,
        classes,
        scores,
        positives,
    }
}

fn against_scikit_learn(number: usize) {
    let case = &cases()[number];
    // One process answers all cases: importing scikit-learn is what takes long.
    static PEER: OnceLock<Option<Value>> = OnceLock::new();
    let Some(peers) = PEER.get_or_init(peer) else {
        return;
    };
    let peer = &peers[number];
    let labels = Labels::from_lists(case.classes, &case.positives).unwrap();
    let matrix = ScoreMatrix::new(
        &case.scores,
        case.samples,
        case.classes,
        Layout::SampleMajor,
    )
    .unwrap();

    let figures = mean_average_precision(&matrix, &labels).unwrap();
    same("mAP", figures.map, &peer["map"]);
    for (class, ap) in figures.per_class.iter().enumerate() {
        same(&format!("class {class}"), *ap, &peer["ap"][class]);
    }
    assert_eq!(
        figures.classes_without_positive.len(),
        usize::from(case.classes > 1)
    );
    six(&at_threshold(&matrix, &labels).unwrap(), &peer["half"]);
    six(&top_k(&matrix, &labels, 3).unwrap(), &peer["top"]);
    let both = top_k_at_threshold(&matrix, &labels, 3).unwrap();
    six(&both, &peer["top_half"]);

    let calibration = calibration(&matrix, &labels).unwrap();
    same("ECE", calibration.ece, &peer["ece"]);
    same("Brier", calibration.brier, &peer["brier"]);

    let best = best_thresholds(&matrix, &labels).unwrap();
    same_threshold("overall", best.overall, &peer["best_f1"]);
    for (class, found) in best.per_class.iter().enumerate() {
        same_threshold(
            &format!("class {class}"),
            *found,
            &peer["class_best_f1"][class],
        );
    }

    let others = other_definitions(&matrix, &labels).unwrap();
    for (name, variant) in [
        ("eleven_point", others.eleven_point),
        ("every_point", others.every_point),
        ("epsilon", others.epsilon),
    ] {
        for (class, ap) in variant.per_class.iter().enumerate() {
            same(&format!("{name}, class {class}"), *ap, &peer[name][class]);
        }
    }
}

fn same_threshold(what: &str, ours: Option<Threshold>, peer: &Value) {
    same(what, ours.map(|best| best.f1), &peer[0]);
    same(
        what,
        ours.and_then(|best| best.logit).map(f64::from),
        &peer[1],
    );
}

fn six(figures: &MultilabelFigures, peer: &Value) {
    let MultilabelFigures {
        cp,
        cr,
        cf1,
        op,
        or,
        of1,
        mean_class_f1,
    } = *figures;
    let names = ["CP", "CR", "CF1", "OP", "OR", "OF1", "mean F1"];
    for (at, (name, figure)) in names
        .iter()
        .zip([cp, cr, cf1, op, or, of1, mean_class_f1])
        .enumerate()
    {
        same(name, figure, &peer[at]);
    }
}

fn same(what: &str, ours: Option<f64>, peer: &Value) {
    match (ours, peer.as_f64()) {
        (Some(ours), Some(peer)) => {
            assert!(
                (ours - peer).abs() <= 1e-12,
                "{what}: {ours}, scikit-learn {peer}"
            );
        }
        (ours, peer) => assert_eq!(ours, peer, "{what}"),
    }
}

/// scikit-learn's answers, or `None` (saying so) where it is not installed.
fn peer() -> Option<Value> {
    let named = std::env::var_os("HGAT_PYTHON");
    let python = named.clone().unwrap_or_else(|| "python3".into());
    let probe = Command::new(&python)
        .args(["-c", "import sklearn"])
        .output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        assert!(
            named.is_none(),
            "HGAT_PYTHON is set to {python:?}, which has no scikit-learn"
        );
        println!("skipped: {python:?} has no scikit-learn; name one that has by HGAT_PYTHON");
        return None;
    }
    let question = Value::from_iter(cases().iter().map(Case::to_json)).to_string();
    let mut child = Command::new(&python)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(question.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "scikit-learn failed");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}
