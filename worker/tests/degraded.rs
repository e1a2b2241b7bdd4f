//! Real runs that go on, if less well: with a bit flipped in a worker's memory, with too little memory, with a worker that
//! lags.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::File;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::disturbed::{
    as_if_nothing_had_happened, lay, ledger, start, until_met, until_stopped,
};
use support::{Place, Run, Watched, distance, reaches, signal};
use tch::Tensor;

/// A conv weight, its momentum, and a batch norm's running mean.
const WEIGHT: &str = "model/features.0.weight";
const MOMENTUM: &str = "optimizer/momentum_buffer/features.0.weight";
const RUNNING_MEAN: &str = "model/features.1.running_mean";
/// Of a tensor: enough that nothing else in a process looks like it.
const ELEMENTS: i64 = 48;

const PAGE: u64 = 4096;

/// Where a process's memory lies that can be written: a worker takes far more addresses than memory.
fn touched(pid: u32) -> std::io::Result<Vec<(u64, u64)>> {
    let pages = File::open(format!("/proc/{pid}/pagemap"))?;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut touched: Vec<(u64, u64)> = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
        let range = line.split(' ').next().unwrap();
        let (from, end) = range.split_once('-').unwrap();
        let at = |text| u64::from_str_radix(text, 16).unwrap();
        let mut entries = vec![0; ((at(end) - at(from)) / PAGE * 8) as usize];
        pages.read_exact_at(&mut entries, at(from) / PAGE * 8)?;
        for (entry, page) in entries
            .chunks_exact(8)
            .zip((at(from)..).step_by(PAGE as usize))
        {
            let present = entry[7] & 0x80 != 0;
            match touched.last_mut() {
                Some((_, end)) if present && *end == page => *end += PAGE,
                _ if present => touched.push((page, page + PAGE)),
                _ => {}
            }
        }
    }
    Ok(touched)
}

/// Changes the fifth value wherever the stretch lies in the process's memory; says whether it was found.
fn change(pid: u32, stretch: &[u8], to: fn(u32) -> u32) -> std::io::Result<bool> {
    let memory = File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"))?;
    let mut found = false;
    for (from, end) in touched(pid)? {
        let mut bytes = vec![0; (end - from) as usize];
        // Not everything that is mapped can be read.
        let Ok(()) = memory.read_exact_at(&mut bytes, from) else {
            continue;
        };
        for place in (0..bytes.len().saturating_sub(stretch.len())).step_by(4) {
            if bytes[place..].starts_with(stretch) {
                let value = to(u32::from_le_bytes(stretch[16..20].try_into().unwrap()));
                memory.write_all_at(&value.to_le_bytes(), from + place as u64 + 16)?;
                found = true;
            }
        }
    }
    Ok(found)
}

/// The beginning of a tensor of the newest checkpoint.
fn stretch(checkpoints: &Path, tensor: &str) -> Option<Vec<u8>> {
    let (file, name) = tensor.split_once('/').unwrap();
    let path = checkpoints.join(format!("last/{file}.safetensors"));
    let tensors = Tensor::read_safetensors(path).ok()?;
    let (_, values) = tensors.into_iter().find(|(known, _)| known == name)?;
    let values: Vec<f32> = values
        .flatten(0, -1)
        .narrow(0, 0, ELEMENTS)
        .try_into()
        .unwrap();
    Some(values.into_iter().flat_map(f32::to_le_bytes).collect())
}

/// Stops a worker before a step, changes what it holds from outside, and lets it go on.
fn corrupt(
    place: &Place,
    run: &Watched,
    worker: &str,
    tensor: &str,
    to: fn(u32) -> u32,
) -> std::io::Result<()> {
    let pid = run.newest_pid(worker);
    let mut changed = false;
    while !changed {
        until_met(&lay(place, "run", worker, "step-begun", "stop"));
        until_stopped(pid);
        // The others wait for it, and the checkpoint of exactly this state is on its way to disk: unless its report of the
        // step before was not on its way yet when it was stopped, for which checkpoints wait as well.
        let give_up = Instant::now() + Duration::from_secs(10);
        while !changed && Instant::now() < give_up {
            let there = stretch(&place.path("run/checkpoints"), tensor);
            if let Some(there) = there {
                changed = change(pid, &there, to)?;
            }
        }
        signal("-CONT", pid);
    }
    Ok(())
}

#[test]
fn a_bit_flipped_in_memory_is_caught_and_healed() {
    let place = Place::with(36, 10);
    let settings = &[
        "train.epochs=16",
        "run.evaluate_every_epochs=100",
        "run.snapshot_every_steps=1",
        "fault.sentinel_steps=3",
        "fault.timeout=60",
        "train.on_not_finite=skip",
    ];
    let mut run = start(&place, "run", 3, settings);
    let bit: fn(u32) -> u32 = |value| value ^ 0x0040_0000; // the mantissa's highest
    let no_number: fn(u32) -> u32 = |value| value | 0x7fc0_0000;
    let changes = [
        ("worker-1", WEIGHT, bit),
        ("worker-2", MOMENTUM, bit),
        ("worker-1", RUNNING_MEAN, bit),
        ("worker-2", WEIGHT, no_number),
    ];
    for (count, (worker, tensor, to)) in (1..).zip(changes) {
        let step = run.wait_until(|_| true)["step"].as_u64().unwrap();
        run.wait_for_step(step + 3);
        if let Err(problem) = corrupt(&place, &run, worker, tensor, to) {
            // Anything else is a failure: its process may not be gone.
            assert_eq!(
                problem.kind(),
                std::io::ErrorKind::PermissionDenied,
                "{problem}"
            );
            println!("skipped: the memory of another process cannot be written ({problem})");
            return;
        }
        let healed = |status: &serde_json::Value| {
            let warnings = status["warnings"].as_array().unwrap().iter();
            let healed = warnings.filter(|text| {
                let text = text.as_str().unwrap();
                text.contains("replicas differ") && text.ends_with("it takes the state from them")
            });
            healed.count() == count && status["phase"] == "training"
        };
        let status = run.wait_until(healed);
        let of = format!("the state hash of {worker} is not that of");
        assert!(status["warnings"].to_string().contains(&of), "{status:#}");
    }
    let run = run.end();

    as_if_nothing_had_happened(&place, &run);
    let over = ledger(&run.dir)["passed_over"].clone();
    let over = over.as_array().unwrap();
    assert!(
        !over.is_empty() && over.len() <= 3,
        "at most until replicas are compared: {over:?}"
    );
    assert_eq!(over[0]["samples"].as_array().unwrap().len(), 12);
    let ledger = ledger(&run.dir);
    assert_eq!(
        (&ledger["steps_passed_over"], &ledger["samples_passed_over"]),
        (&over.len().into(), &(12 * over.len()).into())
    );
    assert!(
        run.err
            .contains("was passed over: its loss or gradient is not finite"),
        "{}",
        run.err
    );
    let finite = |tensor: &Tensor| tensor.isfinite().all().int64_value(&[]) == 1;
    assert!(run.tensors().values().all(finite));
}

/// Without an arena of 64 MiB of addresses for every thread, which would hide what tensors take.
fn frugal(command: &mut Command) -> &mut Command {
    command.env("MALLOC_ARENA_MAX", "1")
}

/// More addresses than any run here takes, in KiB. Where they are limited a worker takes none in advance for large pages.
const PLENTY: u64 = 64 << 20;

/// The most address space that one of two workers of such a run has used, in KiB.
fn peak(place: &Place, name: &str, settings: &[&str]) -> u64 {
    let mut command = place.command_with(&starved(place, PLENTY), name, 2, settings);
    let mut run = Watched::start(frugal(&mut command), place.path(name));
    run.wait_for_step(2);
    let status = std::fs::read_to_string(format!("/proc/{}/status", run.newest_pid("worker-1")));
    let status = status.unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmPeak:"))
        .unwrap();
    signal("-TERM", run.pid());
    run.end();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A limit, in KiB, with which tensors may take what lies half-way between two peaks: they leave the last 64 MiB alone.
fn between(less: u64, most: u64) -> u64 {
    u64::midpoint(less, most) + (64 << 10)
}

/// A worker that `worker-1` runs with so many KiB of address space.
fn starved(place: &Place, kib: u64) -> PathBuf {
    let script = place.path("starved-worker");
    let worker = support::worker().display();
    let text = format!(
        "#!/bin/bash\ncase \"$*\" in *worker-1*) ulimit -v {kib} ;; esac\nexec '{worker}' \"$@\"\n"
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

fn run_starved(place: &Place, name: &str, script: &Path, settings: &[&str]) -> Run {
    let mut command = place.command_with(script, name, 2, settings);
    let output = frugal(&mut command).output().unwrap();
    Run::new(place.path(name), &output)
}

#[test]
fn without_memory_micro_batches_are_halved_or_the_run_says_what_would_fit() {
    let place = Place::with(256, 4);
    let whole: &[&str] = &[
        "data.size=96",
        "data.resize=96",
        "train.global_batch=128",
        "train.micro_batch=64",
        "train.epochs=2",
    ];
    let half: Vec<_> = whole
        .iter()
        .copied()
        .filter(|key| !key.contains("micro"))
        .chain(["train.micro_batch=32"])
        .collect();
    let (most, less) = (peak(&place, "whole", whole), peak(&place, "half", &half));
    println!("KiB of addresses: {most} with micro-batches of 64, {less} with 32");
    assert!(most > less + 50_000, "{most} {less}");
    let script = starved(&place, between(less, most));

    let halve = [whole, &["train.on_out_of_memory=halve"]].concat();
    let run = run_starved(&place, "halved", &script, &halve);
    assert_eq!(run.code, Some(0), "{run:#?}\n{}", run.logs());
    assert!(
        run.err
            .contains("every micro-batch of 64 goes forward in 2 parts"),
        "{}",
        run.err
    );
    assert_eq!(ledger(&run.dir)["holds"], true);

    // Who comes after a coordinator that was killed goes on with the halves: parts do not pass for whole ones.
    let longer = [halve.as_slice(), &["train.epochs=12"]].concat();
    let mut command = place.command_with(&script, "killed", 2, &longer);
    let mut run = Watched::start(frugal(&mut command), place.path("killed"));
    run.wait_for_step(2);
    signal("-KILL", run.pid());
    let killed = run.end();
    assert!(killed.err.contains("in 2 parts"), "{}", killed.err);
    let run = run_starved(&place, "killed", &script, &["--resume"]);
    assert_eq!(run.code, Some(0), "{run:#?}\n{}", run.logs());
    // One that had forgotten them would halve whole ones again; where halves are still too much, it goes on from there.
    assert!(!run.err.contains("in 2 parts"), "{}", run.err);
    assert_eq!(ledger(&run.dir)["holds"], true);

    let run = run_starved(&place, "stopped", &script, whole);
    assert_eq!(run.code, Some(75), "{run:#?}\n{}", run.logs());
    assert!(
        run.err.contains("would fit with train.micro_batch = 32"),
        "{}",
        run.err
    );
}

#[test]
fn without_memory_for_several_micro_batches_a_worker_does_them_one_by_one_with_the_same_result() {
    let place = Place::with(128, 4);
    let wide: &[&str] = &[
        "data.size=64",
        "data.resize=64",
        "train.global_batch=128",
        "train.micro_batch=16",
        "train.epochs=2",
        "train.precision=float64",
        "train.micro_batches_per_pass=4",
    ];
    let narrow: Vec<_> = wide
        .iter()
        .copied()
        .filter(|key| !key.contains("per_pass"))
        .chain(["train.micro_batches_per_pass=1"])
        .collect();
    let long = |keys: &[&'static str]| [keys, &["train.epochs=40"]].concat();
    let most = peak(&place, "wide", &long(wide));
    let less = peak(&place, "narrow", &long(&narrow));
    println!("KiB of addresses: {most} with 4 micro-batches a pass, {less} with 1");
    assert!(most > less + 50_000, "{most} {less}");
    let script = starved(&place, between(less, most));

    let run = run_starved(&place, "one-by-one", &script, wide);
    assert_eq!(run.code, Some(0), "{run:#?}\n{}", run.logs());
    let said = "no memory for 4 micro-batches side by side";
    assert!(run.err.contains(said), "{}", run.err);
    assert!(!run.err.contains("goes forward in"), "{}", run.err);
    assert_eq!(ledger(&run.dir)["holds"], true);
    // Two steps in float64: what batch normalisation sees has not changed.
    let even = place.good("even", 2, &narrow);
    let (far, name) = distance(&run.tensors(), &even.tensors());
    println!("after two steps it differs by {far:.1e} ({name})");
    assert!(far < 1e-9, "{name} differs by {far}");
}

#[test]
fn by_speed_a_slow_worker_does_less_and_the_result_is_the_same_to_rounding() {
    let place = Place::with(36, 10);
    let settings: &[&str] = &[
        "train.precision=float64",
        "train.epochs=8",
        "run.evaluate_every_epochs=100",
        "fault.timeout=10",
        "run.snapshot_every_steps=1",
        "run.keep_checkpoints=1000",
    ];
    let by_speed = [settings, &["train.balance=speed"]].concat();
    let mut run = start(&place, "run", 3, &by_speed);
    run.wait_for_step(1);
    let pid = run.newest_pid("worker-2");
    let over = Arc::new(AtomicBool::new(false));
    let throttle = std::thread::spawn({
        let over = Arc::clone(&over);
        // It runs for a third of the time.
        move || {
            while !over.load(Ordering::Relaxed) && Path::new(&format!("/proc/{pid}/stat")).exists()
            {
                for (name, millis) in [("-STOP", 20), ("-CONT", 10)] {
                    reaches(name, pid);
                    std::thread::sleep(Duration::from_millis(millis));
                }
            }
        }
    });
    let run = run.end();
    over.store(true, Ordering::Relaxed);
    throttle.join().unwrap();

    // It is given less than the others.
    as_if_nothing_had_happened(&place, &run);
    assert!(
        run.err.contains("worker-2 (rank 2) is a straggler"),
        "{}",
        run.err
    );
    let ledger = ledger(&run.dir);
    let generations = ledger["generations"].as_array().unwrap();
    let shares = &generations[1]["shares"];
    assert!(shares[2].as_u64() < shares[0].as_u64(), "{ledger:#}");

    // Up to that generation all is as in a run that shares evenly; its first step differs by the order of additions.
    let first = generations[1]["begins_at_step"].as_u64().unwrap();
    let after = (first + 1).to_string();
    let even = place.good("even", 3, &[settings, &["--stop-after", &after]].concat());
    let folder = run.dir.join(format!("checkpoints/step-{:08}", first + 1));
    let (far, name) = distance(&support::tensors_of(&folder), &even.tensors());
    println!("shared by speed, a step differs by {far:.1e} ({name})");
    assert!(far < 1e-12, "{name} differs by {far}");
}
