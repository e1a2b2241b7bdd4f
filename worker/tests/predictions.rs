//! What is done with a trained model: predictions, their figures, and the same weights in PyTorch.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::{Place, coordinator, worker};
use tch::Tensor;

fn predict(checkpoint: &Path, images: &Path, more: &[&str]) -> Output {
    Command::new(worker())
        .args(["predict", "--json", "--checkpoint"])
        .arg(checkpoint)
        .arg("--images")
        .arg(images)
        .args(more)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn logits(line: &Value) -> Vec<f64> {
    let logits = line["logits"].as_array().unwrap();
    logits.iter().map(|logit| logit.as_f64().unwrap()).collect()
}

fn furthest(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max)
}

#[test]
fn a_checkpoint_gives_the_references_logits_in_python_and_comes_back_as_a_pth_tar() {
    let place = Place::with(36, 10);
    let run = place.good("run", 2, &["--stop-after", "3"]);
    let checkpoint = run.last();
    let images = place.data().join("val2017");

    // Given what the model is shown, and the reference's logits for it
    let pixels = place.path("val.safetensors");
    let written = Command::new(worker())
        .args(["pixels", "--split", "val", "--size", "32", "--data"])
        .arg(place.data())
        .arg("--to")
        .arg(&pixels)
        .output()
        .unwrap();
    assert!(written.status.success(), "{written:?}");
    let out = place.path("logits.safetensors");
    let python = std::env::var("HGAT_PYTHON").unwrap_or_else(|_| "python3".into());
    let reference = Command::new(python)
        .arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference_logits.py"))
        .args([&checkpoint, &pixels, &out])
        .output()
        .unwrap();
    assert!(reference.status.success(), "{reference:?}");
    let given = |wanted: &str| -> Vec<f64> {
        Tensor::read_safetensors(&out)
            .unwrap()
            .into_iter()
            .find_map(|(name, tensor)| (name == wanted).then_some(tensor))
            .map(|tensor| tensor.flatten(0, -1).try_into().unwrap())
            .unwrap()
    };
    let expected = given("logits");

    // When the folder is predicted with the checkpoint, and with PyTorch's file of the same weights
    let ours = predict(&checkpoint, &images, &[]);
    let flipped = predict(&checkpoint, &images, &["--flip"]);
    let back = predict(
        &place.path("logits.safetensors.pth.tar"),
        &images,
        &["--size", "32"],
    );

    // Then
    assert!(ours.status.success(), "{ours:?}");
    assert!(back.status.success(), "{back:?}");
    let found: Vec<f64> = lines(&ours).iter().flat_map(logits).collect();
    let distance = furthest(&found, &expected);
    println!("logits are at most {distance:.1e} from the reference's");
    assert!(distance <= 1e-4, "{distance}");
    assert_eq!(lines(&ours), lines(&back));
    // With --flip the mean of both views' logits
    let found: Vec<f64> = lines(&flipped).iter().flat_map(logits).collect();
    assert!(furthest(&found, &given("flipped")) <= 1e-4);
    assert!(furthest(&found, &expected) > 1e-3);
    let said = String::from_utf8_lossy(&back.stderr).into_owned();
    assert!(
        said.contains("tensors matched") && said.contains("state_dict"),
        "{said}"
    );
}

#[test]
fn predictions_of_the_validation_pictures_have_the_runs_own_figures() {
    let place = Place::with(36, 40);
    // In float64 no rounding can change an order, so that the figures must be the same to the bit
    let run = place.good("run", 2, &["train.precision=float64"]);
    let predictions = place.path("predictions.jsonl");
    let output = predict(&run.last(), &place.data().join("val2017"), &[]);
    std::fs::write(&predictions, &output.stdout).unwrap();

    let evaluated = Command::new(coordinator())
        .args(["evaluate", "--json", "--predictions"])
        .arg(&predictions)
        .arg("--annotations")
        .arg(place.data().join("annotations/instances_val2017.json"))
        .output()
        .unwrap();

    assert!(evaluated.status.success(), "{evaluated:?}");
    let offline: Value = serde_json::from_slice(&evaluated.stdout).unwrap();
    let summary = run.summary();
    assert!(summary["map"].as_f64().unwrap() > 0.0);
    for figures in ["map", "per_class", "at_threshold", "top3"] {
        assert!(!summary[figures].is_null(), "{figures}: {summary}");
        assert_eq!(offline[figures], summary[figures], "{figures}");
    }
    // And the run has left a report, with the pictures of its mistakes and what its groups attend to
    let page = std::fs::read_to_string(place.path("run/report.html")).unwrap();
    assert!(page.contains("mean over 40 validation images"), "{page}");
    assert!(page.contains("<img src=\"data:image/jpeg;base64,"));
    assert_eq!(page.matches("<svg class=\"plot\"").count(), 9);
}

#[test]
fn attention_is_shared_out_among_the_nodes_of_a_graph() {
    let place = Place::with(12, 4);
    let run = place.good("run", 1, &["--stop-after", "1"]);
    let images = place.data().join("val2017");
    let files = std::fs::read_dir(images).unwrap().flatten();
    let attention = |pictures: &[PathBuf]| {
        let mut command = Command::new(worker());
        command.args(["attention", "--checkpoint"]).arg(run.last());
        command.args(pictures).output().unwrap()
    };

    let mut pictures: Vec<PathBuf> = files.map(|file| file.path()).collect();
    pictures.push(place.path("not-there.jpg"));
    let seen = attention(&pictures);
    let none = attention(&pictures[4..]);

    assert!(seen.status.success(), "{seen:?}");
    let seen: Value = serde_json::from_slice(&seen.stdout).unwrap();
    assert_eq!(
        (&seen["pictures"], &seen["unreadable"]),
        (&4.into(), &1.into())
    );
    let groups = seen["groups"].as_array().unwrap();
    let tables = groups
        .iter()
        .map(|group| (&group["within"], group["classes"].as_array().unwrap().len()));
    for (table, nodes) in tables.chain([(&seen["between"], groups.len())]) {
        let rows = table.as_array().unwrap();
        assert_eq!(rows.len(), nodes);
        for row in rows {
            let row: Vec<f64> = row
                .as_array()
                .unwrap()
                .iter()
                .filter_map(Value::as_f64)
                .collect();
            assert_eq!(row.len(), nodes);
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{row:?}");
        }
    }
    assert_eq!(none.status.code(), Some(65), "{none:?}");
    assert!(String::from_utf8_lossy(&none.stderr).contains("not-there.jpg"));
}

#[test]
fn a_folder_as_people_have_it_loses_no_picture() {
    let Some(cases) = std::env::var_os("HGAT_TEST_CASES") else {
        println!("skipped: HGAT_TEST_CASES is not set, so there is no such folder");
        return;
    };
    let case = Path::new(&cases).join("IMG-15-predict-folder");
    let expected: Value =
        serde_json::from_slice(&std::fs::read(case.join("expected.json")).unwrap()).unwrap();
    let expected = &expected["variants"]["photos"];
    let place = Place::with(12, 4);
    let run = place.good("run", 1, &["--stop-after", "1"]);

    let output = predict(&run.last(), &case.join("photos"), &[]);

    assert_eq!(output.status.code(), Some(65), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("2 of 6"),
        "{output:?}"
    );
    let lines = lines(&output);
    let names: Vec<&str> = lines
        .iter()
        .map(|line| line["file"].as_str().unwrap())
        .collect();
    assert!(names.is_sorted());
    let with = |key: &str| -> Vec<&str> {
        let has = |line: &&Value| line.get(key).is_some_and(|value| !value.is_null());
        lines
            .iter()
            .filter(has)
            .map(|line| line["file"].as_str().unwrap())
            .collect()
    };
    assert_eq!(serde_json::json!(with("logits")), expected["with_logits"]);
    assert_eq!(serde_json::json!(with("error")), expected["with_error"]);
    for line in lines.iter().filter(|line| line["logits"].is_array()) {
        assert_eq!(logits(line).len(), 80);
    }
}
