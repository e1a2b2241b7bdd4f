//! Evaluations as a coordinator before this one has left them.

use std::collections::BTreeMap;
use std::time::Instant;

use tokio::sync::watch;

use super::{Evaluations, Stage, Table};

impl Evaluations {
    /// Takes over that evaluations have their figures, by the steps before them with their mAP: scores of them that come yet are
    /// not wanted.
    pub fn have_figures(&self, known: impl IntoIterator<Item = (u64, Option<f64>)>) {
        let mut tables = self.lock();
        for (step, map) in known {
            tables.entry(step).or_insert_with(|| Table {
                began: Instant::now(),
                stage: Stage::Done(map),
                done: watch::Sender::new(true),
            });
        }
    }

    /// Takes over scores: by (step, sample) the logits, or that the sample was skipped. Returns the
    /// steps whose evaluations are complete with it and lack nothing but their figures: ranks may have trained on long since.
    pub fn restore(&self, scores: &BTreeMap<(u64, u32), Option<Vec<f32>>>) -> Vec<u64> {
        let mut complete = Vec::new();
        for (&(step, sample), logits) in scores {
            let receipt = match logits {
                Some(logits) => self.submit(step, &[sample], logits, &[]),
                None => self.submit(step, &[], &[], &[sample]),
            };
            // What does not fit this data set is scored again.
            if receipt.is_ok_and(|receipt| receipt.completed) {
                complete.push(step);
            }
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use domain::labels::Labels;

    use super::*;

    /// Two samples of one class, of which the first has it.
    fn evaluations() -> Evaluations {
        let mut labels = Labels::new(2, 1);
        labels.insert(0, 0).unwrap();
        Evaluations::new(labels)
    }

    #[test]
    fn scores_of_an_evaluation_that_has_its_figures_come_too_late() {
        let evaluations = evaluations();
        evaluations.have_figures([(4, Some(0.5))]);
        let receipt = evaluations.submit(4, &[0, 1], &[1.0, 0.0], &[]).unwrap();
        assert!(receipt.too_late && !receipt.completed);
        assert!(!evaluations.submit(8, &[0], &[1.0], &[]).unwrap().too_late);
        let left_over = BTreeMap::from([((4, 0), Some(vec![1.0])), ((4, 1), None)]);
        assert!(evaluations.restore(&left_over).is_empty());
    }

    #[test]
    fn figures_are_computed_in_the_order_of_steps() {
        let evaluations = evaluations();
        let scores = |step| [((step, 0), Some(vec![1.0])), ((step, 1), Some(vec![0.0]))];
        let both = BTreeMap::from_iter(scores(8).into_iter().chain(scores(4)));
        assert_eq!(evaluations.restore(&both), [4, 8]);
        assert_eq!(evaluations.first_complete(), Some(4));
        assert!(evaluations.compute(4).is_some());
        assert_eq!(evaluations.first_complete(), Some(8));
    }
}
