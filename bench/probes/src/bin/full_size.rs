//! Times what a coordinator does with a data set of full size, for `bench/full_size.py`.
//!
//! `full_size open DATA`: both annotation files to the index. `full_size check DATA THREADS CACHE`: all picture files, then again
//! with what CACHE remembers, then what both splits have in common. `full_size plan SAMPLES RANKS`: an epoch's permutation and
//! every rank's steps. `full_size ledger RUN_DIR SAMPLES RANKS EPOCHS`: the record of so many epochs, as the driver writes it.
//! Each prints one JSON object.

#![allow(clippy::print_stdout, reason = "its answer")]

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use coordinator::store::{Digest, Resume, Store};
use data::coco::{DataPaths, Dataset, Options, Split};
use data::files::{CheckOptions, OnBadImage, check_files, shared_pictures};
use domain::assignment::Assignment;
use domain::ledger::Ledger;
use domain::run_plan::{RunPlan, RunShape};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// Samples of a rank in a step.
const PER_RANK: u32 = 16;
/// Steps between two writes of the ledger. The driver writes about once a second, which at full size is every few steps.
const STEPS_PER_LEDGER: u64 = 2;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut answer = match arguments.as_slice() {
        ["open", data] => open(data)?,
        ["check", data, threads, cache] => check(data, threads.parse()?, Path::new(cache))?,
        ["plan", samples, ranks] => plan(samples.parse()?, ranks.parse()?)?,
        ["ledger", run_dir, samples, ranks, epochs] => ledger(
            Path::new(run_dir),
            shape(samples.parse()?, ranks.parse()?, epochs.parse()?),
            ranks.parse()?,
        )?,
        _ => bail!(
            "usage: full_size open DATA | check DATA THREADS CACHE | plan SAMPLES RANKS | ledger RUN_DIR SAMPLES RANKS EPOCHS"
        ),
    };
    answer["peak_mib"] = peak_mib()?.into();
    println!("{answer}");
    Ok(())
}

fn opened(data: &str) -> Result<Dataset> {
    Ok(Dataset::open(
        &DataPaths::root(Path::new(data)),
        &Options::default(),
    )?)
}

fn open(data: &str) -> Result<Value> {
    let (began, spent) = (Instant::now(), processor_seconds());
    let dataset = opened(data)?;
    let (seconds, spent) = (began.elapsed().as_secs_f64(), processor_seconds() - spent);
    let began = Instant::now();
    let bytes = dataset.train.encode().len() + dataset.val.encode().len();
    let encode_seconds = began.elapsed().as_secs_f64();
    let labels = |split: &Split| -> usize { split.samples.iter().map(|s| s.labels.len()).sum() };
    Ok(json!({
        "seconds": seconds,
        "cpu_seconds": spent,
        "pictures": [dataset.train.samples.len(), dataset.val.samples.len()],
        "labels": [labels(&dataset.train), labels(&dataset.val)],
        "index_bytes": bytes,
        "encode_seconds": encode_seconds,
    }))
}

fn check(data: &str, threads: usize, cache: &Path) -> Result<Value> {
    let dataset = opened(data)?;
    let options = CheckOptions {
        on_bad_image: OnBadImage::Error,
        threads,
        cache: Some(cache),
    };
    let mut seconds = Vec::new();
    for _ in 0..2 {
        let began = Instant::now();
        for split in [&dataset.train, &dataset.val] {
            check_files(split, &options).map_err(|bad| anyhow::anyhow!("{bad}"))?;
        }
        seconds.push(began.elapsed().as_secs_f64());
    }
    let began = Instant::now();
    let shared = shared_pictures(&dataset.train, &dataset.val);
    Ok(json!({
        "check_seconds": seconds[0],
        "again_seconds": seconds[1],
        "shared_seconds": began.elapsed().as_secs_f64(),
        "warning": shared.warning(),
    }))
}

fn shape(samples: u32, ranks: u32, epochs: u32) -> RunShape {
    RunShape {
        seed: 0,
        samples,
        val_samples: 1,
        further_rows: 0,
        early_stopping: None,
        global_batch: PER_RANK * ranks,
        micro_batch: PER_RANK,
        epochs,
        evaluate_every_epochs: 1,
        snapshot_every_steps: None,
        snapshot_every_epochs: None,
    }
}

fn plan(samples: u32, ranks: u32) -> Result<Value> {
    let plan = RunPlan::new(shape(samples, ranks, 1), ranks)?;
    let began = Instant::now();
    let epoch = plan.epoch_plan(0);
    let permutation_seconds = began.elapsed().as_secs_f64();
    let mut planned = 0;
    for rank in 0..ranks {
        let steps = epoch.rank_steps(plan.steps_of_epoch(0), rank, &Assignment::even(ranks))?;
        let batches = steps.iter().flat_map(|step| &step.micro_batches);
        planned += batches.map(|batch| batch.sample_ids.len()).sum::<usize>();
    }
    if planned != samples as usize {
        bail!("{planned} of {samples} samples were planned");
    }
    Ok(json!({
        "permutation_seconds": permutation_seconds,
        "plan_seconds": began.elapsed().as_secs_f64(),
        "steps": plan.steps_per_epoch(),
    }))
}

fn ledger(run_dir: &Path, shape: RunShape, ranks: u32) -> Result<Value> {
    let plan = RunPlan::new(shape, ranks)?;
    let shares = Assignment::even(ranks);
    // What every rank would report, drawn before the clock runs.
    let mut digests = vec![Vec::new(); plan.total_steps() as usize];
    for epoch in 0..shape.epochs {
        let drawn = plan.epoch_plan(epoch);
        for rank in 0..ranks {
            for step in drawn.rank_steps(plan.steps_of_epoch(epoch), rank, &shares)? {
                let ids = step
                    .micro_batches
                    .iter()
                    .flat_map(|batch| &batch.sample_ids);
                digests[step.step as usize].push(proto::samples_digest(ids.copied()));
            }
        }
    }
    std::fs::create_dir_all(run_dir)?;
    let path = run_dir.join("run.redb");
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let (began, spent) = (Instant::now(), processor_seconds());
    runtime.block_on(async {
        let (store, _) = Store::open(&path, "full-size", Resume::At(0))?;
        store.shape(shape);
        let mut ledger = Ledger::new();
        let members = (0..ranks).map(|rank| format!("worker-{rank}")).collect();
        ledger.begin_generation(1, 0, members, shares.clone())?;
        store.begin_generation(1, &ledger).await?;
        for (step, digests) in (0..).zip(digests) {
            for (rank, digest) in (0..).zip(digests) {
                store.digest(Digest {
                    step,
                    rank,
                    generation: 1,
                    digest,
                });
            }
            ledger.commit_through(1, step)?;
            store.step(proto::v1::StepPoint {
                step,
                loss: 0.5,
                learning_rate_head: 0.1,
                images_per_second: 1000.0,
                learning_rate_trunk: 0.1,
                gradient_norm: 1.5,
                data_wait_fraction: 0.01,
                samples: shape.global_batch,
                unix_millis: 1_700_000_000_000 + step,
            });
            if step % STEPS_PER_LEDGER == 0 {
                store.ledger(&ledger);
            }
        }
        store.ledger(&ledger);
        store.end().await.context("the record cannot be written")
    })?;
    Ok(json!({
        "write_seconds": began.elapsed().as_secs_f64(),
        "write_cpu_seconds": processor_seconds() - spent,
        "steps": plan.total_steps(),
        "bytes": std::fs::metadata(&path)?.len(),
    }))
}

/// Processor time of this process so far, in the kernel and out of it.
fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The most memory that this process has had at once.
fn peak_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    Ok(kib.context("no VmHWM")?.parse::<f64>()? / 1024.0)
}
