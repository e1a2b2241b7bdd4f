//! `coordinator start`: everything that is checked before a worker starts, then the run, then its summary.
//!
//! The order of a start: config, placement, run directory, data, listener, and only then anything that stays.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data::coco::Dataset;
use domain::run_plan::RunPlan;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::checks::Checked;
use super::failure::DATA;
use super::pictures::PictureCheck;
use super::{
    Baseline, Environment, Failure, LOST, OK, StartArgs, USAGE, no_color, report, signals,
};
use crate::baseline;
use crate::checkpoint::Checkpoints;
use crate::config::{Config, Sources};
use crate::evaluation::labels_of;
use crate::launch::local::any_lives;
use crate::machine::Placement;
use crate::observer::Observer;
use crate::run::{self, Launch, ResumePoint, RunSetup};
use crate::run_dir::RunDir;
use crate::summary::Summary;
use crate::terminal::{self, Narrator, Opening, Terminal, closing, figures, last_words};

/// A run that may begin.
pub(super) struct Prepared {
    terminal: Terminal,
    /// As the person gave it.
    run_dir_name: PathBuf,
    run_dir: RunDir,
    run_id: String,
    config: Config,
    placement: Placement,
    dataset: Arc<Dataset>,
    /// Of the picture files.
    check: PictureCheck,
    plan: RunPlan,
    listener: TcpListener,
    /// Where workers come from.
    launch: Launch,
    adopt: bool,
    resume: Option<ResumePoint>,
    stop_after: Option<u64>,
    baseline: Option<Baseline>,
    no_color: bool,
}

/// Checks everything and takes the run directory and the port.
pub(super) fn prepare(
    args: &StartArgs,
    sources: &Sources,
    environment: &Environment,
) -> Result<Prepared, Failure> {
    let no_color = no_color(environment);
    let terminal = Terminal::new(args.quiet, no_color);
    let (run_dir, run_id, config) = take_run_dir(args, sources)?;
    let checked = Checked::new(
        args,
        config,
        environment,
        &terminal,
        Some(run_dir.image_cache()),
    )?;
    let listener = checked.listen()?;
    let Checked {
        config,
        placement,
        launch,
        dataset,
        check,
        plan,
    } = checked;
    let resume = find_checkpoint(args.resume, &config, &run_dir, &dataset, &terminal)?;
    Ok(Prepared {
        terminal,
        run_dir_name: args.run_dir.clone(),
        run_dir,
        run_id,
        config,
        placement,
        dataset,
        check,
        plan,
        listener,
        launch,
        adopt: args.resume,
        resume,
        stop_after: args.stop_after,
        baseline: args.baseline,
        no_color,
    })
}

/// Runs it to its end; gives the exit code.
pub(super) async fn start(prepared: Prepared) -> Result<u8, Failure> {
    let Prepared {
        terminal,
        run_dir,
        config,
        dataset,
        plan,
        listener,
        ..
    } = prepared;
    let check = prepared.check.soon(&terminal).await?;
    let bound = listener
        .local_addr()
        .map_err(|error| Failure::new(LOST, format!("the listener has no address: {error}")))?;
    run_dir.write_config(&config.to_toml())?;
    let address = run_dir.write_address(bound, &prepared.run_id)?.address;
    let opening = Opening {
        run_id: &prepared.run_id,
        run_dir: &prepared.run_dir_name,
        address: &address,
        config: &config,
        dataset: &dataset,
        placement: &prepared.placement,
        plan: &plan,
        resumed: prepared
            .resume
            .as_ref()
            .map(|resume| (resume.step, resume.checkpoint.clone())),
        workers_live: prepared.adopt && any_lives(run_dir.path()),
    };
    opening.lines().iter().for_each(|line| terminal.say(line));

    let worker = report::worker_of(&prepared.launch);
    let observer = Observer::new();
    let labels = labels_of(&dataset.val).map_err(|error| Failure::new(DATA, error.to_string()))?;
    let chance = domain::average_precision::chance_map(&labels.support(), labels.samples());
    let narrator = Narrator::new(config.train.epochs, plan.steps_per_epoch(), chance);
    let events = observer.events();
    let setup = RunSetup {
        run_id: prepared.run_id,
        run_dir: run_dir.path().to_owned(),
        spec: config.run_spec(&dataset, &plan),
        dataset: Arc::clone(&dataset),
        shape: *plan.shape(),
        keep_checkpoints: config.run.keep_checkpoints.get(),
        fault_timeout: config.fault.timeout,
        grace: config.fault.grace,
        membership: config.membership(),
        adopt: prepared.adopt,
        resume: prepared.resume,
        stop_after: prepared.stop_after,
        launch: prepared.launch,
    };
    let listener = listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::TcpListener::from_std(listener))
        .map_err(|error| Failure::new(LOST, format!("cannot listen at {address}: {error}")))?;
    let baseline = prepared
        .baseline
        .map(|_| baseline::begin(Arc::clone(&dataset)));
    let (requests, shutdown) = mpsc::channel(4);
    signals::pass_on(&requests)?;
    let watching = async {
        if let Some(check) = check {
            check.watch(requests, &terminal).await;
        }
    };
    let run = Box::pin(run::serve(setup, listener, shutdown, observer));
    let (outcome, narrator, ()) = tokio::join!(run, terminal.follow(events, narrator), watching);
    let outcome = outcome?;

    let baseline_map = match baseline {
        Some(baseline) => baseline.map(outcome.exit_code == OK, &terminal).await,
        None => None,
    };
    let summary = Summary::new(&outcome, &dataset, plan.steps_per_epoch(), baseline_map);
    run_dir.write_summary(&summary.to_json())?;
    for (split, number) in narrator.skipped_samples() {
        let samples = figures::count(number, "sample was", "samples were");
        terminal.warn(&format!(
            "{samples} left out of the {split} split in this process: events.jsonl names them"
        ));
    }
    let finished = summary.ended == "finished";
    let report = report::leave(
        run_dir.path(),
        &dataset,
        worker.filter(|_| finished),
        &terminal,
    );
    let report = report.await;
    if outcome.exit_code != OK {
        terminal.say("");
        let text = last_words(&summary, narrator.untold(&outcome.reason));
        terminal::error(&text, prepared.no_color);
    }
    closing(&summary, &prepared.run_dir_name, report.is_some())
        .iter()
        .for_each(|line| terminal.say(line));
    if let Some(report) = report {
        report.complete(&terminal).await;
    }
    Ok(outcome.exit_code)
}

fn take_run_dir(args: &StartArgs, sources: &Sources) -> Result<(RunDir, String, Config), Failure> {
    if !args.resume {
        // Mistakes first: they are no reason to make a directory.
        let config = Config::load(sources)?;
        let run_dir = RunDir::create(&args.run_dir)?;
        let run_id = new_run_id(run_dir.path());
        return Ok((run_dir, run_id, config));
    }
    let (run_dir, run_id) = RunDir::resume(&args.run_dir)?;
    if let Some(summary) = run_dir
        .read_summary()
        .filter(|summary| summary["ended"] == "finished")
    {
        let epochs = summary["epochs"].as_u64().unwrap_or_default();
        let sentence = format!(
            "{}: this run has finished all that it was to do ({}): see summary.json; for more, start a new run with \
             train.init pointing to its best checkpoint",
            args.run_dir.display(),
            figures::count(epochs, "epoch", "epochs")
        );
        return Err(Failure::new(USAGE, sentence));
    }
    let config = Config::resume(&run_dir.config(), sources)?;
    Ok((run_dir, run_id, config))
}

/// Twelve hexadecimal digits that no other run has.
pub(super) fn new_run_id(run_dir: &Path) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let unique = format!(
        "{} {} {}",
        now.as_nanos(),
        std::process::id(),
        run_dir.display()
    );
    Sha256::digest(unique)
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn find_checkpoint(
    resume: bool,
    config: &Config,
    run_dir: &RunDir,
    dataset: &Dataset,
    terminal: &Terminal,
) -> Result<Option<ResumePoint>, Failure> {
    let checkpoints = Checkpoints::open(run_dir.checkpoints(), config.run.keep_checkpoints)?;
    let found = if resume {
        checkpoints.recover()?
    } else {
        Default::default()
    };
    found
        .damaged
        .iter()
        .for_each(|damaged| terminal.warn(damaged));
    if resume && found.checkpoint.is_none() {
        terminal.warn(
            "there is no complete checkpoint yet: the run begins again at step 0 unless its workers are training still",
        );
    }
    let estimate = found
        .checkpoint
        .as_ref()
        .map_or_else(|| config.checkpoint_estimate(dataset), |entry| entry.bytes);
    if let Some(warning) = checkpoints.space_warning(estimate) {
        terminal.warn(&warning);
    }
    Ok(found.checkpoint.map(|entry| ResumePoint {
        step: entry.step,
        checkpoint: entry.path,
    }))
}
