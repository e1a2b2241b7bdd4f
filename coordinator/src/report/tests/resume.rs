//! A run whose coordinator was killed while a second generation did steps of the first again.

use domain::ledger::Ledger;
use domain::shares::Shares;
use proto::v1::StepPoint;

use super::super::{Attention, Material, curves, tensorboard};
use super::material::{dataset, evaluated, point, shape};
use crate::standing::Standing;
use crate::store::{Resume, Store};

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
    curves_go_on(&material);
    let page = std::fs::read_to_string(path.join("report.html")).unwrap();
    assert!(
        page.contains("4 steps became void"),
        "the page says what was done again"
    );
    assert!(page.contains("cut off"));
}

/// Curves over steps have a point a step, as far apart as steps are; over time none goes back.
fn curves_go_on(material: &Material) {
    let record = &material.record;
    let step = 1.0 / f64::from(record.steps_per_epoch);
    let by_epoch = curves::by_epoch(record);
    let of_steps = by_epoch
        .iter()
        .filter(|figure| figure.heading != "Validation");
    for figure in of_steps {
        for line in &figure.plot.lines {
            assert_eq!(line.parts.len(), 1, "{} has a gap", figure.heading);
            assert_eq!(line.parts[0].len(), 8, "{}", figure.heading);
            for pair in line.parts[0].windows(2) {
                let apart = pair[1].0 - pair[0].0;
                assert!(
                    (apart - step).abs() < 1e-9,
                    "{}: {apart} epochs from one step to the next",
                    figure.heading
                );
            }
        }
    }
    for figure in curves::by_time(record) {
        for line in &figure.plot.lines {
            let points: Vec<_> = line.parts.iter().flatten().collect();
            assert!(points.len() > 1);
            assert!(
                points.is_sorted_by(|a, b| a.0 <= b.0),
                "{}: {} goes back: {points:?}",
                figure.heading,
                line.name
            );
        }
    }
}
