//! What was trained, on what, by which workers, and what came of it.

use maud::{Markup, html};

use domain::average_precision as ap;

use super::record::Record;
use super::timeline::clock;
use crate::evaluation::labels_of;
use crate::standing::Standing;
use crate::terminal::figures::{count, grouped, percent};

/// In a line.
pub(super) fn title(record: &Record) -> String {
    let model = record.config.as_ref().map_or_else(
        |_| "HGAT_FC".to_owned(),
        |config| format!("HGAT_FC {} · {}", config.model.graph, config.model.backbone),
    );
    format!("{model} · run {}", record.run_id)
}

pub(super) fn section(record: &Record) -> Markup {
    let (last, best) = record.last_and_best();
    let map = |known: Option<&crate::evaluation::Evaluated>| {
        percent(known.and_then(|known| known.metrics.average_precision.map))
    };
    let evaluations = record.evaluations.len() as u64;
    html! {
        h1 { (title(record)) }
        p { (standing(record)) }
        div class="headline" {
            div {
                "last mAP"
                b { (map(last)) }
                small {
                    @match last {
                        Some(last) => { "after epoch " (last.epoch + 1) ", the model that the run ends with" },
                        None => "nothing is evaluated yet",
                    }
                }
            }
            div {
                "best mAP"
                b { (map(best)) }
                small {
                    @if let Some(best) = best {
                        "after epoch " (best.epoch + 1) "; a selected figure: the highest of "
                        (count(evaluations, "evaluation", "evaluations"))
                        " of the same images, so it flatters the model"
                    } @else { "nothing is evaluated yet" }
                }
            }
            div {
                "chance mAP"
                b { (percent(chance(record))) }
                small { "what one score for all images gives" }
            }
        }
        (facts(record))
    }
}

fn chance(record: &Record) -> Option<f64> {
    let (last, _) = record.last_and_best();
    last.and_then(|last| last.metrics.average_precision.chance_map)
        .or_else(|| {
            let labels = labels_of(&record.dataset.as_ref().ok()?.val).ok()?;
            ap::chance_map(&labels.support(), labels.samples())
        })
}

fn standing(record: &Record) -> Markup {
    match &record.standing {
        Standing::Ended(summary) => {
            let ended = summary["ended"].as_str().unwrap_or("ended");
            let reason = summary["reason"].as_str().unwrap_or_default();
            html! { span class={ "chip " (ended) } { (ended) } " " (reason) }
        }
        Standing::UnderWay => html! {
            span class="chip" { "under way" } " this page shows what was recorded when it was made"
        },
        Standing::CutOff => html! {
            span class="chip failed" { "cut off" }
            " its coordinator was lost; " code { "coordinator start --resume" } " goes on with it"
        },
    }
}

fn facts(record: &Record) -> Markup {
    let steps = record.steps_done();
    let planned = u64::from(record.steps_per_epoch) * u64::from(record.shape.epochs);
    let history = &record.history;
    let hosts: std::collections::BTreeSet<_> = history
        .workers
        .values()
        .map(|seen| (&seen.host, &seen.device))
        .collect();
    let void: u64 = record
        .ledger
        .void()
        .iter()
        .map(|void| void.steps.end() - void.steps.first)
        .sum();
    html! {
        dl class="facts" {
            dt { "trained" }
            dd {
                (format!("{:.2}", record.epochs(steps))) " of " (count(u64::from(record.shape.epochs), "epoch", "epochs"))
                ", " (grouped(steps)) " of " (count(planned, "step", "steps")) " of "
                (count(u64::from(record.shape.global_batch), "image", "images"))
            }
            dt { "data" }
            dd { (data(record)) }
            dt { "workers" }
            dd {
                (count(history.workers.len() as u64, "worker", "workers"))
                @if !hosts.is_empty() {
                    ": "
                    @for (number, (host, device)) in hosts.iter().take(8).enumerate() {
                        @if number > 0 { ", " } (device) " on " (host)
                    }
                    @if hosts.len() > 8 { " and " (hosts.len() - 8) " more" }
                }
            }
            @if let Some(began) = history.began_unix_millis {
                dt { "begun" }
                dd {
                    (clock(began)) " UTC"
                    @if history.parts > 1 { ", served by " (history.parts) " coordinators one after the other" }
                }
            }
            @if void > 0 {
                dt { "done again" }
                dd {
                    (count(void, "step", "steps")) " became void with the workers that held them and were done again; "
                    "curves show the committed ones only"
                }
            }
            dt { "directory" }
            dd { code { (record.run_dir.display()) } }
        }
        (config(record))
    }
}

fn data(record: &Record) -> Markup {
    match &record.dataset {
        Ok(dataset) => html! {
            code { (dataset.train.annotation_file.display()) } " (" (grouped(dataset.train.samples.len() as u64))
            " images) and " code { (dataset.val.annotation_file.display()) } " ("
            (grouped(dataset.val.samples.len() as u64)) "); "
            (count(dataset.classes.len() as u64, "class", "classes")) " in "
            (count(dataset.groups.len() as u64, "group", "groups"))
        },
        Err(problem) => html! {
            (grouped(record.shape.samples.into())) " training and " (grouped(record.shape.val_samples.into()))
            " validation images, which cannot be read now: " (problem)
        },
    }
}

/// What differs from the defaults.
fn config(record: &Record) -> Markup {
    let config = match &record.config {
        Ok(config) => config,
        Err(problem) => return html! { p { "The config cannot be read: " (problem) } },
    };
    html! {
        details {
            summary { "Config: what differs from the defaults" }
            dl class="facts" {
                @for (key, value) in config.beside_defaults() {
                    dt { code { (key.name) } } dd { code { (value) } }
                }
            }
        }
    }
}

/// What the figures mean.
pub(super) fn footer(record: &Record) -> Markup {
    let made = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let made = made.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
    html! {
        h2 { "Definitions" }
        p class="soft" { (ap::DEFINITION) }
        p class="soft" { (ap::MEAN_DEFINITION) }
        p class="soft" { (ap::CHANCE_DEFINITION) }
        p class="soft" { (domain::multilabel::DEFINITION) }
        p class="soft" {
            "Made by coordinator " (env!("CARGO_PKG_VERSION")) " at " (clock(made)) " UTC from run " (record.run_id)
            "; the figures behind the curves are in history.csv and evaluations.csv beside this page, and in tb/ for "
            "TensorBoard. " code { "coordinator report --run-dir " (record.run_dir.display()) } " makes it again."
        }
    }
}
