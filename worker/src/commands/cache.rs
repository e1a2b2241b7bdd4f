//! `worker cache build`: fills a cache of decoded pictures before a run needs it.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use data::cache::{Cache, build};
use data::coco::{DataPaths, Dataset, Options};

use crate::device;
use crate::error::WorkerError;

/// Keep decoded pictures, so that every epoch after the first reads them instead of decoding them again.
#[derive(Debug, Args)]
pub(crate) struct CacheCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Build(Build),
}

/// Decode every picture of both splits into a folder.
///
/// A run with `data.cache` fills it by itself; this does it beforehand. It may be stopped and started again, and used by
/// runs meanwhile. Pictures take width × height × 3 bytes: COCO 2014 about 100 GiB. To empty it, remove the folder.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  worker cache build --data /data/coco --cache /fast/pixels\n  coordinator start --data /data/coco --set data.cache=/fast/pixels --run-dir runs/a"
)]
struct Build {
    /// Root of a COCO-format data set; as data.root, where the others do not name everything
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Which year, where the root holds both
    #[arg(long, value_name = "YEAR")]
    year: Option<u16>,
    /// As data.train_annotations
    #[arg(long, value_name = "FILE")]
    train_annotations: Option<PathBuf>,
    /// As data.train_images
    #[arg(long, value_name = "DIR")]
    train_images: Option<PathBuf>,
    /// As data.val_annotations
    #[arg(long, value_name = "FILE")]
    val_annotations: Option<PathBuf>,
    /// As data.val_images
    #[arg(long, value_name = "DIR")]
    val_images: Option<PathBuf>,
    /// Folder to keep decoded pictures in, as in data.cache
    #[arg(long, value_name = "DIR")]
    cache: PathBuf,
    /// Most GiB in it, as in data.cache_gib
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    gib: u32,
    /// Decoding threads; without it, one per core
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

/// Builds.
///
/// # Errors
/// When the data set cannot be read, the folder not written, or pictures are missing from it in the end.
pub(crate) fn run(command: &CacheCommand, out: &mut impl Write) -> Result<(), WorkerError> {
    let What::Build(arguments) = &command.what;
    let failed = |what: &'static str, path: &Path, reason: String| WorkerError::Input {
        what,
        path: path.display().to_string(),
        reason,
    };
    let named = [
        &arguments.data,
        &arguments.train_annotations,
        &arguments.val_annotations,
    ];
    let named = named.into_iter().flatten().next();
    let data = named.map_or(Path::new("(none named)"), PathBuf::as_path);
    // The same paths as a run has, which is what pictures are known by.
    let absolute = |path: &Option<PathBuf>| match path {
        Some(path) => std::path::absolute(path)
            .map(Some)
            .map_err(|error| failed("data set", path, error.to_string())),
        None => Ok(None),
    };
    let paths = DataPaths {
        root: absolute(&arguments.data)?,
        year: arguments.year,
        train_annotations: absolute(&arguments.train_annotations)?,
        train_images: absolute(&arguments.train_images)?,
        val_annotations: absolute(&arguments.val_annotations)?,
        val_images: absolute(&arguments.val_images)?,
    };
    let dataset = Dataset::open(&paths, &Options::default())
        .map_err(|error| failed("data set", data, error.to_string()))?;
    let cannot = |error: std::io::Error| failed("cache", &arguments.cache, error.to_string());
    let tell = |text: &str| tracing::warn!("{text}");
    let limit = u64::from(arguments.gib) << 30;
    let cache = Cache::open(&arguments.cache, limit, tell).map_err(cannot)?;
    let threads = match arguments.threads {
        Some(threads) => threads.get(),
        None => device::processors()?.get(),
    };
    let (mut bad, mut left) = (0, 0);
    for split in [&dataset.train, &dataset.val] {
        let built = build(&cache, split, threads).map_err(cannot)?;
        for image in built.bad.iter().take(20) {
            tracing::warn!("{image}");
        }
        bad += built.bad.len();
        left += split.samples.len() as u64 - built.pictures;
        let line = format!(
            "{}: {} of {} {} pictures, {:.1} GiB in all",
            arguments.cache.display(),
            built.pictures,
            split.samples.len(),
            split.name,
            built.bytes as f64 / f64::from(1 << 30)
        );
        writeln!(out, "{line}").map_err(cannot)?;
    }
    match (left, bad) {
        (0, _) => Ok(()),
        (_, 0) => Err(failed(
            "cache",
            &arguments.cache,
            format!("{left} pictures did not come in; raise --gib or free the disk"),
        )),
        (_, _) => Err(failed(
            "data set",
            data,
            format!("{bad} pictures cannot be read; fetch them again"),
        )),
    }
}
