//! Runs that are disturbed, and the one check that they are as good as if they had not been.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{PATIENCE, Place, Run, Watched, coordinator, processes_with, worker};

/// Long enough to be disturbed, short enough to wait for: 36 samples, three steps an epoch.
const EPOCHS: &[&str] = &["train.epochs=12", "run.snapshot_every_epochs=4"];
/// In an epoch.
const STEPS: u64 = 3;

/// A run whose workers keep a witness each.
pub(crate) fn start(place: &Place, name: &str, workers: usize, more: &[&str]) -> Watched {
    start_with(worker(), place, name, workers, more)
}

/// The same with workers that this program starts.
pub(crate) fn start_with(
    worker_binary: &Path,
    place: &Place,
    name: &str,
    workers: usize,
    more: &[&str],
) -> Watched {
    let witness = place.path(&format!("{name}-witness"));
    std::fs::create_dir_all(&witness).unwrap();
    let arguments: Vec<_> = EPOCHS.iter().chain(more).copied().collect();
    let mut command = place.command_with(worker_binary, name, workers, &arguments);
    command.env("HGAT_WITNESS", witness);
    command.env("HGAT_FAULTS", place.path(&format!("{name}-faults")));
    Watched::start(&mut command, place.path(name))
}

/// That a run which was disturbed is as good as one that was not: exactly once by its own ledger and by what every
/// worker wrote down for itself, its decisions can be replayed, and nothing is left of it.
pub(crate) fn as_if_nothing_had_happened(place: &Place, run: &Run) {
    assert_eq!(run.summary()["ended"], "finished", "{run:#?}");
    all_holds(place, run);
}

/// The same for a run that was stopped, and may have an epoch that is not complete.
pub(crate) fn all_holds(place: &Place, run: &Run) {
    assert_eq!(run.code, Some(0), "{run:#?}\n{}", run.logs());
    let ledger = ledger(&run.dir);
    assert_eq!(ledger["holds"], true, "{ledger:#}");
    // What holds for want of reports would say nothing.
    let check = |what: &str| ledger["check"][what].as_u64().unwrap();
    assert!(
        check("ranks_confirmed") > check("ranks_unreported"),
        "{ledger:#}"
    );
    let name = run.dir.file_name().unwrap().to_string_lossy().into_owned();
    let (trained, applied) = witnessed(&place.path(&format!("{name}-witness")), &ledger);
    let steps_done = ledger["steps_done"].as_u64().unwrap();
    assert_eq!(
        applied.into_iter().collect::<Vec<_>>(),
        (0..steps_done).collect::<Vec<_>>()
    );
    for (epoch, mut samples) in trained {
        samples.sort_unstable();
        if (epoch + 1) * STEPS <= steps_done {
            assert_eq!(samples, (0..36).collect::<Vec<_>>(), "epoch {epoch}");
        } else {
            samples.dedup();
            assert_eq!(
                samples.len() as u64,
                steps_done % STEPS * 12,
                "epoch {epoch}"
            );
        }
    }
    best_is_one_story(run);
    let replayed = std::process::Command::new(coordinator())
        .arg("replay")
        .arg(run.dir.join("events.jsonl"))
        .output()
        .unwrap();
    assert!(replayed.status.success(), "{replayed:?}");
    let folder = run.dir.display().to_string();
    assert_eq!(processes_with(&folder), Vec::<String>::new());
}

/// That `best` leads to the best checkpoint that there is, and that the summary says so, and whether the best epoch has one.
pub(crate) fn best_is_one_story(run: &Run) {
    let folder = run.dir.join("checkpoints");
    let mut maps: Vec<(f64, String)> = std::fs::read_dir(&folder)
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let manifest = std::fs::read(folder.join(&name).join("manifest.json"));
            let manifest: serde_json::Value = serde_json::from_slice(&manifest.ok()?).unwrap();
            let map = manifest["map"]
                .as_f64()
                .filter(|_| name.starts_with("step-"))?;
            Some((map, name))
        })
        .collect();
    // Of equals the earliest.
    maps.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let best = std::fs::read_link(folder.join("best")).ok();
    assert_eq!(best, maps.first().map(|(_, name)| name.into()), "{maps:?}");
    let summary = run.summary();
    let told = summary["best_checkpoint"].as_str();
    assert_eq!(
        told.map(|path| Path::new(path).file_name().unwrap().into()),
        best,
        "{summary:#}"
    );
    let Some(map) = summary["best_map"].as_f64() else {
        return;
    };
    let evaluations = summary["evaluations"].as_array().unwrap();
    let mut of_best = evaluations.iter().filter(|known| known["map"] == map);
    let step = of_best.next().unwrap()["step"].as_u64().unwrap();
    let has = maps
        .first()
        .is_some_and(|(_, name)| *name == format!("step-{step:08}"));
    assert_eq!(summary["best_has_checkpoint"], has, "{summary:#}");
    let epoch = &summary["best_epoch"];
    let missing = format!("epoch {epoch}, the best, has no checkpoint");
    assert_eq!(run.out.contains(&missing), !has, "{}", run.out);
}

/// By epoch, the samples that went into the lineage's steps; and the steps of it that somebody applied.
fn witnessed(
    folder: &Path,
    ledger: &serde_json::Value,
) -> (BTreeMap<u64, Vec<u64>>, BTreeSet<u64>) {
    let owner = |step: u64| {
        let of = |generation: &&serde_json::Value| {
            let (first, last) = (
                generation["committed"]["first"].as_u64(),
                generation["committed"]["last"].as_u64(),
            );
            first.is_some_and(|first| first <= step) && last.is_some_and(|last| step <= last)
        };
        let generations = ledger["generations"].as_array().unwrap();
        generations.iter().find(of)?["number"].as_u64()
    };
    let mut trained: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut applied = BTreeSet::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let mut computed = BTreeSet::new();
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let step = line["step"].as_u64().unwrap();
            let samples = line["samples"].as_array().map(|samples| {
                let ids = samples.iter().filter_map(serde_json::Value::as_u64);
                ids.collect::<Vec<_>>()
            });
            for sample in samples.iter().flatten() {
                let known = (step, *sample);
                if line["kept"] == true {
                    assert!(computed.contains(&known), "it never computed {line}");
                } else {
                    computed.insert(known);
                }
            }
            if owner(step) != line["generation"].as_u64() {
                continue; // tried, and void or cut off
            }
            if let Some(samples) = samples {
                trained.entry(step / STEPS).or_default().extend(samples);
            } else {
                applied.insert(step);
            }
        }
    }
    (trained, applied)
}

pub(crate) fn ledger(run_dir: &Path) -> serde_json::Value {
    let output = std::process::Command::new(coordinator())
        .args(["ledger", "--json", "--run-dir"])
        .arg(run_dir)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// The same run, resumed, with the same witness.
pub(crate) fn again(place: &Place, name: &str) -> Watched {
    let mut command = place.command(name, 3, &["--resume"]);
    command.env("HGAT_WITNESS", place.path(&format!("{name}-witness")));
    command.env("HGAT_FAULTS", place.path(&format!("{name}-faults")));
    Watched::start(&mut command, place.path(name))
}

/// Lays a fault that `who` meets at a named point of the protocol: `kill` or `stop`. Returns the file by which it is known
/// that it was met.
pub(crate) fn lay(place: &Place, run: &str, who: &str, point: &str, action: &str) -> PathBuf {
    let faults = place.path(&format!("{run}-faults"));
    std::fs::create_dir_all(&faults).unwrap();
    let name = format!("{who}.{point}");
    let taken = faults.join(format!("{name}.taken"));
    let _ = std::fs::remove_file(&taken);
    // Whole when it appears.
    std::fs::write(faults.join("new"), action).unwrap();
    std::fs::rename(faults.join("new"), faults.join(name)).unwrap();
    taken
}

/// Waits until `holds`; `what` it waits for is said when that takes too long.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a fault was met.
pub(crate) fn until_met(file: &Path) {
    let what = format!("somebody comes by {}", file.display());
    until(&what, || file.exists());
}

/// Waits until a process is stopped.
pub(crate) fn until_stopped(pid: u32) {
    until(&format!("process {pid} stops"), || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.contains("State:\tT")
    });
}
