//! Something simple beside the model: a linear classifier on 8×8 thumbnails, computed while the run trains.

use std::sync::Arc;

use data::coco::Dataset;
use domain::average_precision::mean_average_precision;
use domain::scores::{Layout, ScoreMatrix};
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
    let scores = scores(dataset)?;
    let labels = labels_of(&dataset.val).map_err(|error| error.to_string())?;
    let matrix = ScoreMatrix::new(
        &scores,
        labels.samples(),
        labels.classes(),
        Layout::SampleMajor,
    )
    .map_err(|error| error.to_string())?;
    Ok(mean_average_precision(&matrix, &labels)
        .map_err(|error| error.to_string())?
        .map)
}

/// Scores of the validation split, `[samples, classes]`.
fn scores(_dataset: &Dataset) -> Result<Vec<f32>, String> {
    Err("this build has none".into())
}
