//! `worker scenes`: draws a data set.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use data::scenes::{self, SceneSet};

use crate::error::WorkerError;

/// Draw a data set in COCO's format: no photographs, the same pictures for the same seed.
///
/// It lets a run be tried without a download, and tests know what is in a picture. Each class has a silhouette, two inks
/// and a texture of its own; classes meet in eight kinds of scene. What a model learns here says nothing about COCO.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  worker scenes --to /tmp/scenes --images 2500 --seed 1\n  coordinator start --workers 2 --data /tmp/scenes --config deploy/experiments/demo.toml --run-dir runs/a"
)]
pub(crate) struct Scenes {
    /// Folder to make
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Pictures in all; a fifth of them is for validation
    #[arg(long, default_value_t = 2500, value_name = "N")]
    images: usize,
    /// Training pictures, instead of four fifths of --images
    #[arg(long, value_name = "N")]
    train: Option<usize>,
    /// Validation pictures, instead of a fifth of --images
    #[arg(long, value_name = "N")]
    val: Option<usize>,
    /// Decides every picture
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Size as a fraction of COCO's 640×480
    #[arg(long, default_value_t = 0.5)]
    scale: f32,
    /// Drawing threads; without it, one per core
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

/// Draws.
///
/// # Errors
/// [`WorkerError::Input`] naming the folder.
pub(crate) fn run(arguments: &Scenes, out: &mut impl Write) -> Result<(), WorkerError> {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let val = arguments.val.unwrap_or(arguments.images / 5);
    let set = SceneSet {
        train: arguments
            .train
            .unwrap_or(arguments.images.saturating_sub(val)),
        val,
        seed: arguments.seed,
        scale: arguments.scale,
        threads: arguments.threads.unwrap_or(cores),
    };
    let failed = |reason: String| WorkerError::Input {
        what: "data set",
        path: arguments.to.display().to_string(),
        reason,
    };
    let drawn =
        scenes::draw(&set, &arguments.to, &|_| {}).map_err(|error| failed(error.to_string()))?;
    let line = format!(
        "{}: {} training and {} validation pictures, drawn by this program (seed {}){}",
        drawn.dir.display(),
        drawn.train.pictures,
        drawn.val.pictures,
        arguments.seed,
        if drawn.reused { ", there already" } else { "" },
    );
    writeln!(out, "{line}").map_err(|error| failed(error.to_string()))
}
