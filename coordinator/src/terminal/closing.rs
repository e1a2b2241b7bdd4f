//! The block a run ends with: why, what it reached, and what to do next.

use std::path::Path;
use std::time::Duration;

use domain::average_precision as ap;

use super::figures::{count, duration, grouped, input_bound, percent, speed};
use super::row;
use crate::summary::Summary;

/// Where a run is, and why. Some reasons begin with the word themselves ("finished: 8 steps", "stopped after 3 of 8 steps").
#[must_use]
pub fn headline(phase: &str, reason: &str) -> String {
    if reason.starts_with(phase) {
        reason.to_owned()
    } else {
        format!("{phase}: {reason}")
    }
}

/// Why a run ends with an error. `news` is what of its reason was not told yet.
#[must_use]
pub fn last_words(summary: &Summary, news: &str) -> String {
    match summary.ended {
        // The word "error" says so.
        "failed" => news.to_owned(),
        ended => headline(ended, news),
    }
}

/// The lines, beginning with the headline unless the run ends with an error, which says the same; `run_dir` is as the person
/// gave it. `report`: whether there is one in it.
#[must_use]
pub fn closing(summary: &Summary, run_dir: &Path, report: bool) -> Vec<String> {
    let run_dir = run_dir.display();
    let mut lines = Vec::new();
    if summary.exit_code == 0 {
        lines.extend([String::new(), headline(summary.ended, &summary.reason)]);
    }
    let progress = format!(
        "{} of {}, {} of {}",
        summary.epochs,
        count(u64::from(summary.epochs_planned), "epoch", "epochs"),
        grouped(summary.steps),
        count(summary.steps_planned, "step", "steps")
    );
    let pace = summary
        .images_per_second
        .map(|pace| format!(" · {}", speed(pace)))
        .unwrap_or_default();
    let took = if summary.seconds > 0.0 {
        format!(" · {}", duration(Duration::from_secs_f64(summary.seconds)))
    } else {
        String::new()
    };
    let wait = summary
        .data_wait
        .map(|wait| format!(" · data wait {:.0} %", 100.0 * wait))
        .unwrap_or_default();
    lines.push(row("trained", &format!("{progress}{took}{pace}{wait}")));
    if let Some(hint) = summary.data_wait.and_then(input_bound) {
        lines.push(row("", &hint));
    }
    if let Some(last) = &summary.last {
        let figures = &last.metrics.average_precision;
        let best = match (summary.best_map, summary.best_epoch) {
            (Some(best), Some(epoch)) => format!(
                "; best {} in epoch {epoch}, chosen on this split",
                percent(Some(best))
            ),
            _ => String::new(),
        };
        let scored = grouped(u64::from(figures.samples));
        lines.push(row(
            "mAP",
            &format!(
                "{} last{best} · on {scored} validation images",
                percent(summary.map)
            ),
        ));
        let baseline = summary.linear_baseline_map.map_or_else(String::new, |map| {
            format!(
                " · linear classifier on 8×8 thumbnails {}",
                percent(Some(map))
            )
        });
        lines.push(row(
            "beside it",
            &format!("chance {}{baseline}", percent(summary.chance_map)),
        ));
        lines.push(row("", ap::DEFINITION));
        if !figures.classes_without_positive.is_empty() {
            let names: Vec<_> = figures
                .classes_without_positive
                .iter()
                .filter_map(|class| summary.classes.get(*class as usize))
                .cloned()
                .collect();
            lines.push(row(
                "",
                &format!("left out, as no image shows them: {}", first_of(&names)),
            ));
        }
        let (at, top) = (&last.metrics.at_threshold, &last.metrics.top3);
        lines.push(row(
            "labels",
            &format!(
                "at p ≥ 0.5: CF1 {}, OF1 {} · top 3: CF1 {}, OF1 {}",
                percent(at.cf1),
                percent(at.of1),
                percent(top.cf1),
                percent(top.of1)
            ),
        ));
    }
    if let Some(checkpoint) = &summary.checkpoint {
        lines.push(row("checkpoint", checkpoint));
    }
    lines.extend(best(summary).map(|best| row("best", &best)));
    lines.push(row("summary", &format!("{run_dir}/summary.json")));
    if report {
        lines.push(row("report", &format!("{run_dir}/report.html")));
    }
    let next = match (summary.ended, &summary.checkpoint) {
        ("finished", Some(_)) => {
            let best = summary.best_checkpoint.is_some();
            let pointer = if best { "best" } else { "last" };
            Some(format!(
                "worker predict --checkpoint {run_dir}/checkpoints/{pointer} --images DIR --json"
            ))
        }
        ("finished", None) => None,
        (_, _) if summary.exit_code == 0 || summary.exit_code == 75 => {
            Some(format!("coordinator start --resume --run-dir {run_dir}"))
        }
        _ => Some(format!("ls {run_dir}/logs")),
    };
    lines.extend(next.map(|next| row("next", &next)));
    lines
}

/// The best checkpoint, where it is not the last, and that the best evaluation has none, where that is so.
fn best(summary: &Summary) -> Option<String> {
    let missing = match (summary.best_has_checkpoint(), summary.best_epoch) {
        (Some(false), Some(epoch)) => Some(format!("epoch {epoch}, the best, has no checkpoint")),
        _ => None,
    };
    let Some(best) = &summary.best_checkpoint else {
        return missing;
    };
    match missing {
        Some(missing) => {
            let epoch = best
                .epoch
                .map_or_else(String::new, |epoch| format!(" of epoch {epoch}"));
            let map = percent(best.map);
            Some(format!("{} · mAP {map}{epoch}: {missing}", best.path))
        }
        None => (Some(&best.path) != summary.checkpoint.as_ref()).then(|| best.path.clone()),
    }
}

/// Names in words, the first few of many; all are in summary.json.
fn first_of(names: &[String]) -> String {
    const NAMED: usize = 6;
    if names.len() <= NAMED {
        return names.join(", ");
    }
    let more = names.len() - NAMED;
    format!(
        "{} and {more} more (all in summary.json)",
        names[..NAMED].join(", ")
    )
}
