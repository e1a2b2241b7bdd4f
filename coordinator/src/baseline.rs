//! Something simple beside the model: a linear classifier on 8×8 thumbnails, computed while the run trains.

use std::sync::Arc;

use data::coco::Dataset;
use data::thumbnails::linear_baseline;
use domain::average_precision::mean_average_precision;
use domain::score_table::ScoreTable;
use tokio::sync::oneshot;

use crate::evaluation::labels_of;
use crate::terminal::Terminal;

/// A baseline under way.
#[derive(Debug)]
pub(crate) struct Running(oneshot::Receiver<Result<Option<f64>, String>>);

/// Begins to compute it in a thread of its own.
#[must_use]
pub(crate) fn begin(dataset: Arc<Dataset>) -> Running {
    let (result, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        // The run may have ended without waiting.
        let _ = result.send(compute(&dataset));
    });
    Running(receiver)
}

impl Running {
    /// Its mAP: waited for if `wait`, else only if it is there. What went wrong is a warning.
    pub(crate) async fn map(mut self, wait: bool, terminal: &Terminal) -> Option<f64> {
        let result = if wait {
            self.0.await.ok()?
        } else {
            self.0.try_recv().ok()?
        };
        match result {
            Ok(map) => map,
            Err(problem) => {
                terminal.warn(&format!("no linear classifier to compare with: {problem}"));
                None
            }
        }
    }
}

fn compute(dataset: &Dataset) -> Result<Option<f64>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    // One thread: the cores belong to the workers.
    let linear = linear_baseline(dataset, 1).map_err(|error| text(&error))?;
    let labels = labels_of(&dataset.val).map_err(|error| text(&error))?;
    let mut table = ScoreTable::new(labels.samples(), labels.classes());
    // Pictures that cannot be read are left out of the mean, as in an evaluation.
    for image in &linear.skipped_val {
        table.skip(image.sample).map_err(|error| text(&error))?;
    }
    let skipped = table.skipped();
    let rows = linear.scores.chunks_exact(dataset.classes.len().max(1));
    for (sample, row) in (0u32..).zip(rows) {
        if skipped.binary_search(&sample).is_err() {
            table.insert(sample, row).map_err(|error| text(&error))?;
        }
    }
    let scored = table.finish(&labels).map_err(|error| text(&error))?;
    let mean = mean_average_precision(&scored.matrix(), scored.labels());
    Ok(mean.map_err(|error| text(&error))?.map)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use data::coco::{DataPaths, Options};
    use data::scenes::{SceneSet, draw};

    use super::*;

    #[test]
    fn the_map_of_drawn_pictures_is_above_chance_and_an_unreadable_one_does_not_stop_it() {
        // given
        let dir = tempfile::tempdir().expect("a temporary folder");
        let root = dir.path().join("scenes");
        let set = SceneSet {
            train: 300,
            val: 120,
            seed: 3,
            scale: 0.1,
            threads: NonZeroUsize::MIN,
        };
        draw(&set, &root, &|_| ()).expect("drawn");
        let dataset =
            Dataset::open(&DataPaths::root(root), &Options::default()).expect("a data set");
        std::fs::remove_file(dataset.val.image_path(7).expect("a path")).expect("removed");
        // when
        let map = compute(&dataset).expect("a baseline").expect("labels");
        // then
        let labels = labels_of(&dataset.val).expect("labels");
        let chance = domain::average_precision::chance_map(&labels.support(), labels.samples())
            .expect("labels");
        assert!(map > chance && map < 1.0, "mAP {map}, chance {chance}");
    }
}
