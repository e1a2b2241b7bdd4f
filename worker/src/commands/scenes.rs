//! `worker scenes`: draws a data set.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use data::scenes::{self, FullSize, FullSizeSplit, SceneError, SceneSet};

use crate::device;
use crate::error::WorkerError;

/// Draw a data set in COCO's format: no photographs, the same pictures for the same seed.
///
/// It lets a run be tried without a download, and tests know what is in a picture. Each class has a silhouette, two inks
/// and a texture of its own; classes meet in eight kinds of scene. What a model learns here says nothing about COCO.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  worker scenes --to /tmp/scenes --images 2500 --seed 1\n  coordinator start --workers 2 --data /tmp/scenes --config deploy/experiments/demo.toml --run-dir runs/a\n  worker scenes --to /tmp/full-size --like-coco2014"
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
    /// COCO 2014's shape instead, to rehearse with: its numbers of pictures and annotations, its frequencies, annotation
    /// files of its size; the pictures show nothing of the labels
    #[arg(long, conflicts_with_all = ["images", "train", "val", "scale", "threads"])]
    like_coco2014: bool,
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
    let lines = if arguments.like_coco2014 {
        full_size(arguments)
    } else {
        let threads = match arguments.threads {
            Some(threads) => threads,
            None => device::processors()?,
        };
        drawn(arguments, threads).map(|line| vec![line])
    };
    let failed = |reason: String| WorkerError::Input {
        what: "data set",
        path: arguments.to.display().to_string(),
        reason,
    };
    for line in lines.map_err(|error| failed(error.to_string()))? {
        writeln!(out, "{line}").map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}

fn drawn(arguments: &Scenes, threads: NonZeroUsize) -> Result<String, SceneError> {
    let val = arguments.val.unwrap_or(arguments.images / 5);
    let set = SceneSet {
        train: arguments
            .train
            .unwrap_or(arguments.images.saturating_sub(val)),
        val,
        seed: arguments.seed,
        scale: arguments.scale,
        threads,
    };
    let drawn = scenes::draw(&set, &arguments.to, &|_| {})?;
    Ok(format!(
        "{}: {} training and {} validation pictures, drawn by this program (seed {}){}",
        drawn.dir.display(),
        drawn.train.pictures,
        drawn.val.pictures,
        arguments.seed,
        if drawn.reused { ", there already" } else { "" },
    ))
}

/// Makes a set of full size and says what it is, and what it is not.
fn full_size(arguments: &Scenes) -> Result<Vec<String>, SceneError> {
    let began = Instant::now();
    let set = FullSize {
        seed: arguments.seed,
        divisor: NonZeroUsize::MIN,
    };
    let made = scenes::draw_full_size(&set, &arguments.to, &|_| {})?;
    let split = |name: &str, split: &FullSizeSplit| {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        format!(
            "  {name:<11} {} pictures ({} without a label), {} annotations, {:.2} classes a picture; JSON of {:.0} MB; \
             {} different pictures of {:.1} MB, {:.0} MB by their names",
            split.counts.pictures,
            split.unlabelled,
            split.counts.objects,
            split.counts.labels_per_picture,
            mb(split.annotation_bytes),
            split.different,
            mb(split.different_bytes),
            mb(split.counts.bytes),
        )
    };
    let when = if made.reused {
        "there already".to_owned()
    } else {
        format!("written in {:.1} s", began.elapsed().as_secs_f64())
    };
    Ok(vec![
        format!(
            "{}: a data set of COCO 2014's shape (seed {}), {when}",
            made.dir.display(),
            arguments.seed
        ),
        split("training", &made.train),
        split("validation", &made.val),
        "  It is to rehearse with and teaches nothing: nothing of the labels can be seen in the pictures.".to_owned(),
    ])
}
