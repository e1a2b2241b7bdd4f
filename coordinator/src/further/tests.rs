use domain::run_plan::RunShape;
use domain::scoring::TrainFigures;

use super::*;
use crate::driver::smallest_config;
use crate::evaluation::Evaluations;

/// 8 training samples of 2 classes, 6 validation samples; steps of 2.
fn parts(figures: TrainFigures) -> (Sheet, Labels, TrainSide) {
    let sheet = Sheet::new(5, 6, true, figures, (8, 100));
    let shape = RunShape {
        seed: 5,
        val_samples: 6,
        further_rows: sheet.further_rows(),
        global_batch: 2,
        epochs: 2,
        ..smallest_config().shape
    };
    let plan = RunPlan::new(shape, 1).unwrap();
    let lists = |n: u32| (0..n).map(|i| vec![i % 2]).collect::<Vec<_>>();
    let labels = |n| Labels::from_lists(2, &lists(n)).unwrap();
    let train = TrainSide {
        labels: labels(8),
        plan,
    };
    (sheet, labels(6), train)
}

/// Logits that are right, or wrong.
fn row(sample: u32, right: bool) -> [f32; 2] {
    let shown = [sample.is_multiple_of(2), !sample.is_multiple_of(2)];
    shown.map(|shown| if shown == right { 1.0 } else { -1.0 })
}

fn evaluated(figures: TrainFigures, right: impl Fn(Way) -> bool) -> Metrics {
    let (sheet, val, train) = parts(figures);
    let rows = sheet.rows();
    let evaluations = Evaluations::of_sheet(sheet, val, train).unwrap();
    // Everything right in the epoch but for the first two steps.
    let (_, _, train) = parts(figures);
    for step in 0..4 {
        for &sample in train.plan.epoch_plan(0).samples_of_step(step) {
            evaluations
                .submit_online(0, &[sample], &row(sample, step >= 2))
                .unwrap();
        }
    }
    for at in 0..rows {
        let (way, sample) = evaluations.place(at).unwrap();
        let receipt = evaluations
            .submit(4, &[at], &row(sample, right(way)), &[])
            .unwrap();
        assert_eq!(receipt.completed, at + 1 == rows);
    }
    evaluations.compute(4).unwrap().outcome.unwrap().0
}

fn map(metrics: &Metrics, figure: Figure) -> Option<f64> {
    let mut found = metrics.further.iter().filter(|f| f.figure == figure);
    let map = found.next()?.map;
    assert!(found.next().is_none());
    map
}

#[test]
fn each_way_has_its_own_figure_and_validation_is_the_one_it_was() {
    let metrics = evaluated(TrainFigures::Decomposed, |way| way != Way::TrainCrops);
    assert_eq!(metrics.average_precision.map, Some(1.0));
    assert_eq!(metrics.average_precision.samples, 6);
    for (figure, expected) in [
        (Figure::ValAverage, 1.0),
        (Figure::TrainClean, 1.0),
        (Figure::TrainBatch, 1.0),
        (Figure::TrainCropsBatch, 1.0),
        (Figure::TrainCropsBatchQuarters, 1.0),
        (Figure::OnlineLastQuarter, 1.0),
    ] {
        assert_eq!(map(&metrics, figure), Some(expected), "{figure:?}");
    }
    // Wrong ones come last, all with one score: a threshold that takes in every sample.
    assert_eq!(map(&metrics, Figure::TrainCrops), Some(0.5));
    assert_eq!(metrics.train_gap, None);
}

#[test]
fn the_figures_that_are_switched_on_are_three_and_the_average() {
    let metrics = evaluated(TrainFigures::On, |_| true);
    let found: Vec<Figure> = metrics.further.iter().map(|f| f.figure).collect();
    let expected = [
        Figure::ValAverage,
        Figure::Online,
        Figure::TrainClean,
        Figure::TrainBatch,
    ];
    assert_eq!(found, expected);
    let online = map(&metrics, Figure::Online).unwrap();
    assert!(online < 1.0, "{online}");
    assert_eq!(metrics.further[1].samples, 8);
}

#[test]
fn clean_training_pictures_that_do_worse_than_validation_have_a_gap() {
    let metrics = evaluated(TrainFigures::On, |way| way != Way::TrainClean);
    let gap = metrics.train_gap.unwrap();
    assert!(gap.difference < 0.0 && gap.is_a_defect(), "{gap:?}");
}

#[test]
fn scores_of_training_that_never_came_leave_their_figures_out() {
    let (sheet, val, train) = parts(TrainFigures::On);
    let rows: Vec<u32> = (0..sheet.rows()).collect();
    let evaluations = Evaluations::of_sheet(sheet, val, train).unwrap();
    let logits: Vec<f32> = rows.iter().flat_map(|_| [0.0, 0.0]).collect();
    evaluations.submit(4, &rows, &logits, &[]).unwrap();
    let metrics = evaluations.compute(4).unwrap().outcome.unwrap().0;
    assert_eq!(map(&metrics, Figure::Online), None);
    assert_eq!(map(&metrics, Figure::TrainClean), Some(0.5));
}
