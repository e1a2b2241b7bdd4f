//! Scores of single images, and what is made of them: precision-recall curves and the worst mistakes.

use domain::ranking::{OperatingPoint, Ranking, points_of_all};

use crate::evaluation::kept::KeptScores;

/// Positives that a class needs for a curve of its own to say something.
const POSITIVES: usize = 5;
/// Points of a drawn curve.
const POINTS: f64 = 200.0;
/// Mistakes of each kind that are shown, and of one class among them.
const SHOWN: usize = 12;
const OF_ONE_CLASS: usize = 2;

/// Points (recall, precision), by falling threshold.
pub(super) type PrCurve = Vec<(f64, f64)>;

/// A label that was predicted wrongly.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mistake {
    /// The row in the scores.
    pub(super) row: usize,
    pub(super) class: usize,
    /// The probability that the model gives.
    pub(super) probability: f64,
}

/// Of all classes' scores in one ranking.
pub(super) fn micro_curve(scores: &KeptScores) -> PrCurve {
    let positives = scores.labels.support().iter().map(|&n| u64::from(n)).sum();
    let points = scores
        .matrix()
        .map(|matrix| points_of_all(&matrix, &scores.labels));
    curve(&points.unwrap_or_default(), positives)
}

/// Of one class.
pub(super) fn class_curve(scores: &KeptScores, class: usize) -> PrCurve {
    let class = u32::try_from(class).unwrap_or(u32::MAX);
    let Ok(matrix) = scores.matrix() else {
        return Vec::new();
    };
    if class >= matrix.classes() {
        return Vec::new();
    }
    let ranking = Ranking::new(&matrix, &scores.labels, class);
    curve(&ranking.points(), ranking.positives())
}

/// The labels that are absent and were given the highest probabilities, and those that are there and were given the
/// lowest. At most a few of one class, so that one bad class does not hide the others, and an image once.
pub(super) fn worst(scores: &KeptScores) -> (Vec<Mistake>, Vec<Mistake>) {
    let (mut absent, mut present) = (Vec::new(), Vec::new());
    let classes = scores.labels.classes() as usize;
    for (row, logits) in scores.logits.chunks_exact(classes.max(1)).enumerate() {
        for (class, &logit) in logits.iter().enumerate() {
            let labelled = scores.labels.contains(row as u32, class as u32);
            let mistake = Mistake {
                row,
                class,
                probability: 1.0 / (1.0 + (-f64::from(logit)).exp()),
            };
            match labelled {
                false if logit >= 0.0 => absent.push(mistake),
                true if logit < 0.0 => present.push(mistake),
                _ => {}
            }
        }
    }
    absent.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    present.sort_by(|a, b| a.probability.total_cmp(&b.probability));
    (varied(absent), varied(present))
}

fn varied(sorted: Vec<Mistake>) -> Vec<Mistake> {
    let mut chosen: Vec<Mistake> = Vec::new();
    for mistake in sorted {
        let of_class = chosen.iter().filter(|known| known.class == mistake.class);
        if of_class.count() < OF_ONE_CLASS && chosen.iter().all(|known| known.row != mistake.row) {
            chosen.push(mistake);
        }
        if chosen.len() == SHOWN {
            break;
        }
    }
    chosen
}

/// The first of the points, the last one, and the first beyond each of 200 equal steps of recall.
fn curve(points: &[OperatingPoint], positives: u64) -> PrCurve {
    let mut next = 0.0;
    let mut kept = Vec::new();
    for point in points {
        let recall = point.found as f64 / positives.max(1) as f64;
        if recall >= next {
            kept.push((recall, point.precision()));
            next = ((recall * POINTS).floor() + 1.0) / POINTS;
        }
    }
    kept
}

/// Classes whose curves are shown: the two with the highest average precision, the one in the middle, the two with the
/// lowest, among those with some positives.
pub(super) fn chosen_classes(per_class: &[Option<f64>], support: &[u32]) -> Vec<usize> {
    let known = per_class.iter().zip(support).enumerate();
    let mut ranked: Vec<(usize, f64)> = known
        .filter(|(_, (_, support))| **support as usize >= POSITIVES)
        .filter_map(|(class, (ap, _))| Some((class, (*ap)?)))
        .collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let count = ranked.len();
    let mut places = vec![
        0,
        1,
        count / 2,
        count.saturating_sub(2),
        count.saturating_sub(1),
    ];
    places.retain(|&place| place < count);
    places.dedup();
    places.sort_unstable();
    places.dedup();
    places.into_iter().map(|place| ranked[place].0).collect()
}

#[cfg(test)]
mod tests {
    use domain::labels::Labels;

    use super::*;
    use crate::evaluation::kept::About;

    /// Scores of two classes.
    fn scores(labels: &[&[u32]], logits: Vec<f32>) -> KeptScores {
        KeptScores {
            about: About {
                version: 1,
                run_id: "a".into(),
                step: 1,
                epoch: 1,
                annotations: String::new(),
                classes: Vec::new(),
                groups: Vec::new(),
            },
            sample_ids: (0..labels.len() as u64).collect(),
            image_ids: (0..labels.len() as u64).collect(),
            labels: Labels::from_lists(2, labels).unwrap(),
            logits,
            skipped: Vec::new(),
        }
    }

    #[test]
    fn a_drawn_curve_is_short_and_ends_where_every_positive_is_found() {
        // Given 5,000 images, each third with class 0, whose scores say nothing
        let labels: Vec<&[u32]> = (0..5000)
            .map(|i| if i % 3 == 0 { &[0u32][..] } else { &[] })
            .collect();
        let logits = (0..10_000u32).map(|i| (i * 7919 % 10_007) as f32).collect();
        let scores = scores(&labels, logits);

        let curve = class_curve(&scores, 0);

        assert!(curve.len() <= 202, "{}", curve.len());
        assert!(curve.is_sorted_by(|a, b| a.0 < b.0));
        let (recall, precision) = *curve.last().unwrap();
        assert_eq!(recall, 1.0);
        assert!((precision - 1.0 / 3.0).abs() < 0.01, "{precision}");
        assert!(micro_curve(&scores).len() <= 202);
        assert_eq!(class_curve(&scores, 1), []);
        assert_eq!(class_curve(&scores, 2), []);
    }

    #[test]
    fn the_worst_mistakes_are_of_several_classes_and_images() {
        // Given three images without labels, and one of class 1 that the model denies
        let scores = scores(
            &[&[], &[], &[], &[1]],
            vec![9.0, 8.0, 7.0, -1.0, 6.0, 1.0, -3.0, -4.0],
        );

        let (absent, present) = worst(&scores);

        // Then class 0 is shown twice, and the third image with its other class
        let places = |of: &[Mistake]| of.iter().map(|m| (m.row, m.class)).collect::<Vec<_>>();
        assert_eq!(places(&absent), [(0, 0), (1, 0), (2, 1)]);
        assert_eq!(places(&present), [(3, 1)]);
        assert!((present[0].probability - 0.017_986).abs() < 1e-5);
    }

    #[test]
    fn curves_are_shown_of_the_best_the_middle_and_the_worst_class() {
        let aps = [
            Some(0.1),
            Some(0.9),
            None,
            Some(0.5),
            Some(0.7),
            Some(0.3),
            Some(0.99),
        ];
        let support = [9, 9, 0, 9, 9, 9, 1];
        assert_eq!(chosen_classes(&aps, &support), [1, 4, 3, 5, 0]);
        assert_eq!(chosen_classes(&aps[..2], &support[..2]), [1, 0]);
        assert_eq!(chosen_classes(&[], &[]), Vec::<usize>::new());
    }
}
