//! `coordinator start --dry-run`: everything a start checks, the plan, a short measured run in a folder that is removed
//! again, and what the whole run will take.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use domain::rehearsal::{Course, estimate};
use domain::run_plan::RunPlan;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::checks::Checked;
use super::{Environment, Failure, LOST, OK, StartArgs, no_color, signals, start};
use crate::checkpoint::free_bytes;
use crate::config::Config;
use crate::observer::RunEvent;
use crate::rehearsal::{
    BESIDE, Leg, Legs, MachineMemory, Observed, Planned, ProbeError, Probed, Rehearsal, WARM_UP,
    measured, milestones, peak_of_this_process, probe, sentence,
};
use crate::run::Launch;
use crate::run_dir::is_occupied;
use crate::terminal::{self, Terminal, figures};

/// Tells all of it; gives the exit code.
pub(super) fn run(args: &StartArgs, environment: &Environment) -> Result<u8, Failure> {
    let terminal = Terminal::new(args.quiet || args.json, no_color(environment));
    // Mistakes in the same order as a start finds them.
    let config = Config::load(&args.config.sources(environment))?;
    let checked = Checked::new(args, config, environment, &terminal, None)?;
    let listener = checked.listen()?;
    let runtime = super::runtime()?;
    let told = runtime.block_on(rehearse(args, checked, listener, &terminal))?;
    drop(terminal);
    if args.json {
        terminal::answer(&told.to_json().to_string());
    } else {
        told.lines().iter().for_each(|line| terminal::answer(line));
    }
    Ok(OK)
}

async fn rehearse(
    args: &StartArgs,
    checked: Checked,
    listener: TcpListener,
    terminal: &Terminal,
) -> Result<Rehearsal, Failure> {
    let Checked {
        config,
        placement,
        launch,
        dataset,
        check,
        plan,
    } = checked;
    check.whole(terminal).await?;
    let run_spec = Leg {
        config: &config,
        dataset: &dataset,
        plan: &plan,
        launch: launch.clone(),
        global_batch: plan.shape().global_batch,
        steps: WARM_UP + args.probe_steps + BESIDE,
        checkpoint_after: Some(WARM_UP + args.probe_steps),
        val_samples: plan
            .shape()
            .val_samples
            .min(plan.shape().global_batch.saturating_mul(4)),
    };
    let planned = planned(&config, &plan, launch.workers(), args.stop_after);
    let probed = match &launch {
        Launch::External { .. } => None,
        Launch::Local { .. } => {
            let with = figures::count(placement.devices.len() as u64, "worker", "workers");
            terminal.say(&format!("measuring {} steps with {with}", run_spec.steps));
            Some(both_legs(args, &run_spec, listener, terminal).await?)
        }
    };
    let estimate = probed.as_ref().and_then(|probed| {
        estimate(
            &planned.course,
            plan.shape().samples,
            planned.rows,
            &probed.measured,
        )
    });
    let mut rehearsal = Rehearsal {
        run_dir: args.run_dir.clone(),
        bottleneck: estimate.map(|estimate| sentence(&estimate, &config, planned.workers)),
        checkpoint_bytes: probed.as_ref().map_or_else(
            || config.checkpoint_estimate(&dataset),
            |probed| probed.measured.checkpoint_bytes,
        ),
        free_bytes: free_bytes(&args.run_dir).ok(),
        price: args.price_per_worker_hour,
        runs: args.seeds.unwrap_or(1),
        notes: notes(args, &config, probed.is_some()),
        warnings: occupied(&args.run_dir).into_iter().collect(),
        planned,
        probed,
        estimate,
    };
    rehearsal.look_for_trouble();
    Ok(rehearsal)
}

fn planned(config: &Config, plan: &RunPlan, workers: u32, stop_after: Option<u64>) -> Planned {
    let shape = plan.shape();
    let last = plan
        .epoch_shape()
        .step(plan.steps_per_epoch().saturating_sub(1));
    Planned {
        images: (shape.samples, shape.val_samples),
        workers,
        device: config.run.device.as_str(),
        batch: (shape.global_batch, shape.micro_batch),
        epochs: (shape.epochs, plan.steps_per_epoch()),
        last_step_images: last.map_or(0, |step| step.samples()),
        rows: shape.evaluation_rows(),
        course: Course::of(plan, config.run.keep_checkpoints, stop_after),
        schedule: config.train.schedule.clone(),
        milestones: milestones(&config.train, plan),
    }
}

/// The workers of the real run, and where they are several, one of them by itself: what the others cost is the difference.
async fn both_legs(
    args: &StartArgs,
    all: &Leg<'_>,
    listener: TcpListener,
    terminal: &Terminal,
) -> Result<Probed, Failure> {
    let told_to_stop = signals::watch_signals()?;
    let folder = folder_beside(&args.run_dir)?;
    let machine_memory = MachineMemory::look();
    let of_all = one_leg(all.clone(), &folder.path().join("all"), listener, terminal).await?;
    let coordinator_memory = peak_of_this_process();
    let alone = match one_of(all) {
        Some(leg) if !told_to_stop.load(Ordering::Relaxed) => {
            terminal.say(&format!(
                "measuring {} steps with one of them by itself",
                leg.steps
            ));
            let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(ProbeError::Socket)?;
            Some(one_leg(leg, &folder.path().join("alone"), listener, terminal).await?)
        }
        Some(_) => {
            return Err(ProbeError::Stopped {
                reason: "stopped by a signal".to_owned(),
            }
            .into());
        }
        None => None,
    };
    let measured = measured(&Legs {
        all: &of_all,
        alone: alone.as_ref(),
        steps: args.probe_steps,
        images_per_step: all.global_batch,
    })?;
    Ok(Probed {
        measured,
        worker_memory: of_all.worker_memory.into_iter().collect(),
        coordinator_memory,
        machine_memory,
        device_memory: of_all.device_memory,
    })
}

/// The same for one worker with as many micro-batches as the busiest has; `None` where there is but one.
fn one_of<'a>(all: &Leg<'a>) -> Option<Leg<'a>> {
    let Launch::Local {
        worker_binary,
        devices,
        threads,
    } = &all.launch
    else {
        return None;
    };
    let workers = u32::try_from(devices.len())
        .ok()
        .filter(|workers| *workers > 1)?;
    let micro_batch = all.plan.shape().micro_batch;
    let micro_batches = (all.global_batch / micro_batch).div_ceil(workers);
    Some(Leg {
        launch: Launch::Local {
            worker_binary: worker_binary.clone(),
            devices: devices[..1].to_vec(),
            threads: *threads,
        },
        global_batch: micro_batches * micro_batch,
        steps: all.steps - BESIDE,
        checkpoint_after: None,
        // Its evaluation is not looked at; the least there is.
        val_samples: 2.min(all.val_samples),
        ..all.clone()
    })
}

async fn one_leg(
    leg: Leg<'_>,
    folder: &Path,
    listener: TcpListener,
    terminal: &Terminal,
) -> Result<Observed, Failure> {
    let (requests, shutdown) = mpsc::channel(4);
    signals::pass_on(&requests)?;
    let trouble = |event: &RunEvent| match event {
        RunEvent::Warning(text) => terminal.warn(text),
        RunEvent::CheckpointProblem { problem, .. } => terminal.warn(problem),
        RunEvent::WorkerLog { worker_id, lines } => {
            lines
                .iter()
                .for_each(|line| terminal.warn(&format!("{worker_id} | {line}")));
        }
        _ => {}
    };
    let run_id = start::new_run_id(folder);
    Ok(Box::pin(probe(leg, (folder, run_id), listener, shutdown, trouble)).await?)
}

/// A folder that goes with its handle, on the disk of the run directory if that can be: so that its speed is measured.
fn folder_beside(run_dir: &Path) -> Result<TempDir, Failure> {
    let new = |place: &Path| {
        tempfile::Builder::new()
            .prefix(".coordinator-dry-run-")
            .tempdir_in(place)
    };
    // Not in the run directory itself, which a dry run leaves as it is.
    let place: Option<PathBuf> = std::path::absolute(run_dir).ok().and_then(|path| {
        path.ancestors()
            .skip(1)
            .find(|path| path.is_dir())
            .map(Path::to_owned)
    });
    let there = place.and_then(|place| new(&place).ok());
    there.map_or_else(|| new(&std::env::temp_dir()), Ok).map_err(|error| {
        Failure::new(
            LOST,
            format!(
                "cannot make a folder for the probe, neither beside {} nor in {} ({error}): make room, or set TMPDIR",
                run_dir.display(),
                std::env::temp_dir().display()
            ),
        )
    })
}

/// Said where a start would be refused.
fn occupied(run_dir: &Path) -> Option<String> {
    is_occupied(run_dir).then(|| {
        format!(
            "{}: a run is here already, which this dry run has not touched: a start will want another --run-dir",
            run_dir.display()
        )
    })
}

/// What the figures do not cover.
fn notes(args: &StartArgs, config: &Config, probed: bool) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |text: &str| notes.push(text.to_owned());
    if !probed {
        note(
            "run.launch = external: workers are started by someone else, so nothing was measured; a checkpoint's size is estimated",
        );
    }
    if config.train.early_stopping.is_some() {
        note("train.early_stopping may end the run earlier; this is the longest it can take");
    }
    if config.data.cache.is_some() && probed {
        note(
            "data.cache was measured empty, as in the first epoch; later ones wait less for pictures",
        );
    }
    if config.train.freeze_trunk_epochs > 0 && probed {
        note(
            "steps were measured with the whole model in training; the epochs with a frozen trunk take less",
        );
    }
    if args.baseline.is_some() {
        note("--baseline is computed beside training and was not measured");
    }
    notes
}

impl From<ProbeError> for Failure {
    fn from(error: ProbeError) -> Self {
        Self::new(error.exit_code(), error.to_string())
    }
}
