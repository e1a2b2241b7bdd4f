//! What a run leaves behind: pointers to checkpoints and kept scores lead to where its history says.

use std::sync::Arc;

use crate::checkpoint::{Checkpoints, Entry};
use crate::evaluation::Evaluated;
use crate::evaluation::scores_folder::ScoresFolder;
use crate::history::History;

/// The checkpoints as they are when the run is over: `best` follows figures that came last of all.
pub(super) async fn in_place(checkpoints: Checkpoints, evaluations: &[Evaluated]) -> Vec<Entry> {
    let maps = evaluations.iter();
    let maps: Vec<_> = maps
        .map(|known| (known.step, known.metrics.average_precision.map))
        .collect();
    let listed = tokio::task::spawn_blocking(move || {
        if let Err(problem) = checkpoints.catch_up(&maps) {
            tracing::warn!(%problem, "a checkpoint does not carry its mAP");
        }
        checkpoints.list()
    });
    let problem = match listed.await {
        Ok(Ok(entries)) => return entries,
        Ok(Err(problem)) => problem.to_string(),
        Err(problem) => problem.to_string(),
    };
    // What the run came to is to be told all the same.
    tracing::warn!(%problem, "the checkpoints cannot be listed");
    Vec::new()
}

/// Moves the links to kept scores to where the history says, whatever came of it on the way.
pub(super) async fn settle(
    scores: Arc<ScoresFolder>,
    history: Arc<History>,
) -> std::io::Result<()> {
    tokio::task::spawn_blocking(move || scores.settle(|| history.steps_and_maps()))
        .await
        .map_err(std::io::Error::other)?
}
