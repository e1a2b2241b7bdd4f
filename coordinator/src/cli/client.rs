//! `coordinator status` and `coordinator stop`: asking a running coordinator.

use std::path::Path;

use proto::v1::{GetStatusRequest, Phase, Status, StopRequest, WatchStatusRequest, WorkerStatus};
use serde_json::{Value, json};

use super::asking::{ANSWER, NEXT, connect};
use super::{AddressArgs, Failure, OK, StatusArgs};
use crate::standing;
use crate::terminal::{answer, figures, headline, row};

pub(super) async fn status(args: &StatusArgs) -> Result<u8, Failure> {
    let show = |status: &Status| {
        answer(&if args.json {
            to_json(status).to_string()
        } else if args.watch {
            to_line(status)
        } else {
            to_text(status)
        });
    };
    let (mut client, asked) = match connect(&args.run).await {
        Ok(connected) => connected,
        Err(failure) => {
            let run_dir = args.run.run_dir.as_deref();
            let Some(summary) = run_dir.and_then(standing::ended) else {
                return Err(failure);
            };
            show(&of_ended(&summary, run_dir));
            return Ok(OK);
        }
    };
    if !args.watch {
        let response = asked
            .within(ANSWER, client.get_status(GetStatusRequest {}))
            .await?;
        show(&response.into_inner().status.unwrap_or_default());
        return Ok(OK);
    }
    let request = client.watch_status(WatchStatusRequest {});
    let mut stream = asked.within(ANSWER, request).await?.into_inner();
    let mut shown = String::new();
    // Its ages change every second, so there is something to hear.
    while let Some(response) = asked.within(NEXT, stream.message()).await? {
        let status = response.status.unwrap_or_default();
        // Ages and remaining times change all the time; a line is for what a person would call a change.
        let line = to_line(&status);
        if line != shown {
            show(&status);
            shown = line;
        }
        if matches!(
            status.phase(),
            Phase::Finished | Phase::Stopped | Phase::Failed
        ) {
            return Ok(OK);
        }
    }
    Ok(OK)
}

/// The status that a run has ended with, as far as its summary says.
fn of_ended(summary: &Value, run_dir: Option<&Path>) -> Status {
    let text = |key: &str| summary[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| summary[key].as_u64().unwrap_or_default();
    let figure = |key: &str| summary[key].as_f64().unwrap_or_default();
    let small = |key: &str| u32::try_from(number(key)).unwrap_or(u32::MAX);
    let (step, total_steps, epochs) = (
        number("steps"),
        number("steps_planned"),
        small("epochs_planned"),
    );
    let steps_per_epoch = (total_steps / u64::from(epochs.max(1))).max(1);
    let phase = match summary["ended"].as_str() {
        Some("finished") => Phase::Finished,
        Some("stopped") => Phase::Stopped,
        _ => Phase::Failed,
    };
    Status {
        run_id: text("run_id"),
        run_dir: run_dir.unwrap_or(Path::new("")).display().to_string(),
        phase: phase.into(),
        reason: text("reason"),
        step,
        total_steps,
        epoch: u32::try_from(step.div_ceil(steps_per_epoch)).unwrap_or(u32::MAX),
        epochs,
        images_per_second: figure("images_per_second"),
        data_wait_fraction: figure("data_wait_fraction"),
        last_map: summary["map"].as_f64(),
        best_map: summary["best_map"].as_f64(),
        best_epoch: small("best_epoch"),
        last_checkpoint: text("checkpoint"),
        best_checkpoint: text("best_checkpoint"),
        exit_code: small("exit_code"),
        ..Status::default()
    }
}

pub(super) async fn stop(args: &AddressArgs) -> Result<u8, Failure> {
    let (mut client, asked) = connect(args).await?;
    let request = StopRequest {
        reason: String::new(),
        by: "`coordinator stop`".into(),
    };
    let response = asked.within(ANSWER, client.stop(request)).await?;
    answer(&response.into_inner().reason);
    Ok(OK)
}

fn phase(status: &Status) -> String {
    status
        .phase()
        .as_str_name()
        .trim_start_matches("PHASE_")
        .to_lowercase()
}

/// One line, without anything that changes by itself.
fn to_line(status: &Status) -> String {
    let map = status
        .last_map
        .map(|map| format!(" · mAP {}", figures::percent(Some(map))))
        .unwrap_or_default();
    let mut pace = String::new();
    if has_stepped(status) {
        pace = format!(" · loss {}", figures::real(status.loss, 4));
        if status.phase() == Phase::Training {
            pace += &format!(" · {}", figures::speed(status.images_per_second));
        }
    }
    format!(
        "{:<10} epoch {}/{} · step {}/{}{pace}{map} · {}",
        phase(status),
        status.epoch,
        status.epochs,
        figures::grouped(status.step),
        figures::grouped(status.total_steps),
        status.reason
    )
}

/// Whether this process has trained a step, so that there are figures of it.
fn has_stepped(status: &Status) -> bool {
    status.loss != 0.0
}

fn to_text(status: &Status) -> String {
    let mut lines = vec![headline(&phase(status), &status.reason)];
    lines.push(row(
        "run",
        &format!("{} in {}", status.run_id, status.run_dir),
    ));
    let generation = match status.generation {
        0 => String::new(),
        generation => format!(", generation {generation}"),
    };
    lines.push(row(
        "progress",
        &format!(
            "epoch {} of {}, {} of {}{generation}",
            status.epoch,
            status.epochs,
            figures::grouped(status.step),
            figures::count(status.total_steps, "step", "steps"),
        ),
    ));
    if has_stepped(status) {
        lines.push(row(
            "training",
            &format!(
                "loss {} · {} · data wait {:.0} %",
                figures::real(status.loss, 4),
                figures::speed(status.images_per_second),
                100.0 * status.data_wait_fraction
            ),
        ));
        if let Some(hint) = figures::input_bound(status.data_wait_fraction) {
            lines.push(row("", &hint));
        }
    }
    if status.samples_to_score > 0 {
        lines.push(row(
            "evaluation",
            &format!(
                "{} of {} images scored",
                figures::grouped(status.samples_scored),
                figures::grouped(status.samples_to_score)
            ),
        ));
    }
    if let Some(last) = status.last_map {
        let best = status.best_map.map(|best| {
            format!(
                "; best {} in epoch {}",
                figures::percent(Some(best)),
                status.best_epoch
            )
        });
        lines.push(row(
            "mAP",
            &format!(
                "{}{}",
                figures::percent(Some(last)),
                best.unwrap_or_default()
            ),
        ));
    }
    if !status.last_checkpoint.is_empty() {
        lines.push(row("checkpoint", &status.last_checkpoint));
    }
    lines.extend(status.workers.iter().map(worker));
    if status.workers_unlisted > 0 {
        lines.push(row(
            "workers",
            &format!(
                "{} are connected; {} are not listed here",
                figures::grouped(status.workers_joined.into()),
                figures::grouped(status.workers_unlisted.into())
            ),
        ));
    }
    lines.extend(status.deadlines.iter().map(|deadline| {
        row(
            "deadline",
            &format!(
                "{} in {:.1} s",
                deadline.name,
                deadline.remaining_millis as f64 / 1e3
            ),
        )
    }));
    lines.extend(
        status
            .warnings
            .iter()
            .map(|warning| row("warning", warning)),
    );
    lines.join("\n")
}

/// A worker in one line.
pub(super) fn worker(worker: &WorkerStatus) -> String {
    let rank = worker
        .rank
        .map_or_else(|| "no rank".into(), |rank| format!("rank {rank}"));
    let collective = if worker.collective.is_empty() {
        String::new()
    } else {
        format!(" · {}", worker.collective)
    };
    let pace = match worker.forward_nanos_per_sample {
        0 => String::new(),
        nanos => format!(" · {:.1} ms forward an image", nanos as f64 / 1e6),
    };
    let due = match worker.heartbeat_remaining_millis {
        Some(millis) => format!(", lost if not again in {:.1} s", millis as f64 / 1e3),
        None => String::new(),
    };
    row(
        &worker.worker_id,
        &format!(
            "{rank} · {} · step {}{collective}{pace} · {} on {}, pid {}, {}, {} · heard of {:.1} s ago{due}",
            worker.activity,
            figures::grouped(worker.step),
            worker.device,
            worker.host,
            worker.pid,
            figures::count(u64::from(worker.threads), "thread", "threads"),
            figures::bytes(worker.resident_bytes),
            worker.heartbeat_age_millis as f64 / 1e3
        ),
    )
}

/// A worker as an object.
pub(super) fn worker_json(worker: &WorkerStatus) -> Value {
    json!({
        "worker_id": worker.worker_id,
        "host": worker.host,
        "pid": worker.pid,
        "device": worker.device,
        "threads": worker.threads,
        "rank": worker.rank,
        "activity": worker.activity,
        "step": worker.step,
        "collective": worker.collective,
        "heartbeat_age_millis": worker.heartbeat_age_millis,
        "heartbeat_remaining_millis": worker.heartbeat_remaining_millis,
        "resident_bytes": worker.resident_bytes,
        "forward_nanos_per_sample": worker.forward_nanos_per_sample,
    })
}

fn to_json(status: &Status) -> Value {
    let workers: Vec<Value> = status.workers.iter().map(worker_json).collect();
    let deadlines: Vec<Value> = status.deadlines.iter().map(|deadline| {
        json!({ "name": deadline.name, "remaining_millis": deadline.remaining_millis })
    }).collect();
    let path = |path: &String| (!path.is_empty()).then(|| path.clone());
    json!({
        "run_id": status.run_id,
        "run_dir": status.run_dir,
        "phase": phase(status),
        "reason": status.reason,
        "generation": status.generation,
        "workers_wanted": status.workers_wanted,
        "workers_joined": status.workers_joined,
        "workers_unlisted": status.workers_unlisted,
        "step": status.step,
        "total_steps": status.total_steps,
        "epoch": status.epoch,
        "epochs": status.epochs,
        "loss": status.loss,
        "images_per_second": status.images_per_second,
        "data_wait_fraction": status.data_wait_fraction,
        "last_map": status.last_map,
        "best_map": status.best_map,
        "best_epoch": status.best_epoch,
        "last_checkpoint": path(&status.last_checkpoint),
        "best_checkpoint": path(&status.best_checkpoint),
        "samples_scored": status.samples_scored,
        "samples_to_score": status.samples_to_score,
        "workers": workers,
        "deadlines": deadlines,
        "warnings": status.warnings,
        "exit_code": status.exit_code,
    })
}
