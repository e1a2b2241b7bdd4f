//! Images per CPU second of the loader on one decoding thread, and of the stages it is made of.
//!
//! `loader ROOT (train|val) SIZE REPEATS [CACHE]` prints one JSON object; every figure counts the CPU time of the whole
//! process. With a folder CACHE, decoded pictures are kept there and the first round is its filling.
//! `loader ROOT (train|val) SIZE boxes` prints the crops instead, `left top width height path` a line.

use anyhow::{Context, bail, ensure};
use data::augment::{Placement, TrainTransform};
use data::cache::Cache;
use data::coco::{DataPaths, Dataset, Options, Split};
use data::files::OnBadImage;
use data::jpeg::{self, Decoder, Header, RgbImage};
use data::loader::{Loader, LoaderOptions, Purpose, Request};
use data::transform::Resampler;
use rustix::time::{ClockId, clock_gettime};
use std::io::Read;
use std::sync::Arc;

const BATCH: usize = 16;
const SEED: u64 = 1;
/// More than any data set that this is run on needs.
const CACHE_BYTES: u64 = 1 << 40;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, purpose, size, repeats, cache @ ..] = arguments.as_slice() else {
        bail!("usage: loader ROOT (train|val) SIZE (REPEATS [CACHE] | boxes)");
    };
    let size: u32 = size.parse()?;
    let purpose = match purpose.as_str() {
        "train" => Purpose::Train,
        "val" => Purpose::Val,
        other => bail!("{other} is neither train nor val"),
    };
    let dataset = Dataset::open(&DataPaths::root(root), &Options::default())?;
    let (train, val) = (Arc::new(dataset.train), Arc::new(dataset.val));
    let split = match purpose {
        Purpose::Val => Arc::clone(&val),
        _ => Arc::clone(&train),
    };
    if repeats == "boxes" {
        return boxes(&split, purpose, size);
    }
    let repeats: u64 = repeats.parse()?;
    let cache = match cache.first() {
        Some(folder) => {
            let tell = |text: &str| tell(&format!("loader: {text}"));
            Some(Arc::new(Cache::open(folder.as_ref(), CACHE_BYTES, tell)?))
        }
        None => None,
    };
    let cached = cache.is_some();
    let options = LoaderOptions {
        size,
        seed: SEED,
        train: TrainTransform::random_resized_crop(),
        flip: true,
        pixels: Default::default(),
        cache,
        on_bad_image: OnBadImage::Error,
        threads: 1,
        prefetch: 2,
    };
    let loader = Loader::start(train, val, options)?;
    // The first round brings the files into memory, or pictures into the cache.
    let began = cpu_seconds();
    epoch(&loader, &split, purpose, 0)?;
    let first = split.samples.len() as f64 / (cpu_seconds() - began);
    let began = cpu_seconds();
    for number in 0..repeats {
        epoch(&loader, &split, purpose, number)?;
    }
    let images = (split.samples.len() as u64 * repeats) as f64;
    let all = images / (cpu_seconds() - began);
    drop(loader);
    let mut answer = serde_json::json!({ "images_per_cpu_second": all, "first_round": first });
    if !cached {
        answer["microseconds"] = stages(&split, purpose, size)?;
    }
    tell(&answer.to_string());
    Ok(())
}

#[allow(clippy::print_stdout, reason = "this is what it is for")]
fn tell(text: &str) {
    println!("{text}");
}

/// What each sample shows of its picture, for peers that are to do the same.
fn boxes(split: &Split, purpose: Purpose, size: u32) -> anyhow::Result<()> {
    for (index, sample) in split.samples.iter().enumerate() {
        let path = split.image_dir.join(&sample.file_name);
        let header = jpeg::probe(&std::fs::read(&path)?)?;
        let shown = place(purpose, index, header.width, header.height, size).region();
        tell(&format!(
            "{} {} {} {} {}",
            shown.left,
            shown.top,
            shown.width,
            shown.height,
            path.display()
        ));
    }
    Ok(())
}

fn place(purpose: Purpose, index: usize, width: u32, height: u32, size: u32) -> Placement {
    match purpose {
        Purpose::Val => Placement::whole(width, height),
        _ => TrainTransform::random_resized_crop().draw(SEED, 0, index as u32, width, height, size),
    }
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Every sample of the split once.
fn epoch(loader: &Loader, split: &Split, purpose: Purpose, epoch: u64) -> anyhow::Result<()> {
    let ids: Vec<u32> = (0..split.samples.len() as u32).collect();
    for (samples, tag) in ids.chunks(BATCH).zip(0..) {
        loader.push(Request {
            tag,
            epoch,
            purpose,
            samples: samples.to_vec(),
        });
    }
    let mut seen = 0;
    while let Some(batch) = loader.next() {
        seen += batch?.sample_ids.len();
    }
    ensure!(
        seen == ids.len(),
        "{seen} of {} pictures came out",
        ids.len()
    );
    Ok(())
}

/// Microseconds an image: reading the file, decoding what is shown of it, resizing it.
fn stages(split: &Split, purpose: Purpose, size: u32) -> anyhow::Result<serde_json::Value> {
    let mut seconds = [0.0; 3];
    let (mut file, mut image) = (Vec::new(), RgbImage::default());
    let (mut decoder, mut resampler) = (Decoder::new(), Resampler::new());
    let mut out = vec![0; (size * size * 3) as usize];
    for (index, sample) in split.samples.iter().enumerate() {
        let path = split.image_dir.join(&sample.file_name);
        let mut last = cpu_seconds();
        let mut lap = |stage: &mut f64| {
            let now = cpu_seconds();
            *stage += now - last;
            last = now;
        };
        file.clear();
        std::fs::File::open(&path)
            .and_then(|mut opened| opened.read_to_end(&mut file))
            .with_context(|| path.display().to_string())?;
        lap(&mut seconds[0]);
        let place = |width, height| place(purpose, index, width, height, size);
        let choose = |header: &Header| place(header.width, header.height).region();
        let decoded = decoder.decode(&file, choose, &mut image)?;
        lap(&mut seconds[1]);
        let Header { width, height, .. } = decoded.header;
        let origin = (decoded.region.left, decoded.region.top);
        let placement = place(width, height);
        resampler.render_part(&image, origin, &placement, size, &mut out)?;
        lap(&mut seconds[2]);
    }
    let micros = |s: f64| (s * 1e6 / split.samples.len() as f64).round();
    Ok(serde_json::json!({
        "read": micros(seconds[0]),
        "decode": micros(seconds[1]),
        "resize": micros(seconds[2]),
    }))
}
