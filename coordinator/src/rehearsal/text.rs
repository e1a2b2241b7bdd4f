//! A dry run as people read it.

use std::time::Duration;

use domain::rehearsal::{Bottleneck, Estimate, Spread};

use super::{Planned, Probed, Rehearsal, WARM_UP};
use crate::terminal::figures::{bytes, count, duration, grouped, speed};
use crate::terminal::row;

impl Rehearsal {
    /// The lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            "dry run: no epoch was trained, and nothing of it is kept".to_owned(),
            String::new(),
            "the plan".to_owned(),
        ];
        lines.extend(self.planned.lines());
        if let Some(probed) = &self.probed {
            let steps = grouped(probed.measured.steps.len() as u64);
            lines.push(String::new());
            lines.push(format!(
                "the probe: {steps} steps after {WARM_UP}, an evaluation and a checkpoint, with the workers of the real run"
            ));
            lines.extend(
                self.estimate
                    .iter()
                    .flat_map(|estimate| probed.lines(estimate)),
            );
        }
        lines.push(String::new());
        lines.push("the whole run, if it goes on like this".to_owned());
        lines.extend(self.whole());
        let noted = |label: &'static str, texts: &[String]| -> Vec<String> {
            texts.iter().map(|text| row(label, text)).collect()
        };
        lines.extend(noted("note", &self.notes));
        lines.extend(noted("warning", &self.warnings));
        lines
    }

    fn whole(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(estimate) = &self.estimate {
            let evaluation = format!("evaluation {}", time(estimate.evaluation.mean));
            lines.push(row(
                "epoch",
                &format!("{} of steps · {evaluation}", times(estimate.epoch)),
            ));
            let runs = if self.runs > 1 {
                format!(" for one of {} seeds", self.runs)
            } else {
                String::new()
            };
            lines.push(row("run", &format!("{}{runs}", times(estimate.run))));
        }
        if let (true, Some(all)) = (self.runs > 1, self.all_runs()) {
            lines.push(row(
                "all seeds",
                &format!("{}, one after another", times(all)),
            ));
        }
        if let Some(hours) = self.worker_hours() {
            let text = spread(hours, |hours| few_digits(hours, 1));
            lines.push(row("workers", &format!("{text} worker-hours")));
        }
        if let (Some(cost), Some(price)) = (self.cost(), self.price) {
            let text = spread(cost, |cost| few_digits(cost, 2));
            lines.push(row("cost", &format!("{text} at {price} a worker-hour")));
        }
        let free = self
            .free_bytes
            .map_or_else(String::new, |free| format!(" of {} free", bytes(free)));
        lines.push(row(
            "disk",
            &format!("{}{free}, for checkpoints", bytes(self.disk_bytes())),
        ));
        if let Some(Estimate { shares, .. }) = &self.estimate {
            let parts = [
                ("compute", Bottleneck::Compute),
                ("communication", Bottleneck::Communication),
                ("input", Bottleneck::Input),
                ("evaluation", Bottleneck::Evaluation),
                ("checkpoints", Bottleneck::Checkpoints),
                ("start", Bottleneck::Start),
            ];
            let part = |(name, part)| format!("{name} {:.1} %", 100.0 * shares.of(part));
            lines.push(row("time goes to", &parts.map(part).join(" · ")));
        }
        lines.extend(self.bottleneck.iter().map(|text| row("bottleneck", text)));
        lines
    }
}

impl Planned {
    fn lines(&self) -> Vec<String> {
        let course = &self.course;
        let (global, micro) = self.batch;
        let micro_batches = global / micro.max(1);
        let (least, rest) = (
            micro_batches / self.workers.max(1),
            micro_batches % self.workers.max(1),
        );
        let each = match rest {
            0 => format!(
                "{least} on each of {}",
                count(self.workers.into(), "worker", "workers")
            ),
            _ => format!(
                "{least} or {} on each of {} workers",
                least + 1,
                grouped(self.workers.into())
            ),
        };
        let turns: Vec<_> = self
            .milestones
            .iter()
            .map(|turn| format!("step {}: {}", grouped(turn.step), turn.what))
            .collect();
        let schedule = match turns.is_empty() {
            true => self.schedule.clone(),
            false => format!("{} · {}", self.schedule, turns.join(" · ")),
        };
        let (epochs, per_epoch) = self.epochs;
        vec![
            row(
                "images",
                &format!(
                    "{} training and {} validation",
                    grouped(self.images.0.into()),
                    grouped(self.images.1.into())
                ),
            ),
            row(
                "steps",
                &format!(
                    "{} in {} of {}, the last of each on {}",
                    grouped(course.steps),
                    count(epochs.into(), "epoch", "epochs"),
                    grouped(per_epoch.into()),
                    count(self.last_step_images.into(), "image", "images")
                ),
            ),
            row(
                "a step",
                &format!(
                    "{} of {micro} images, {each} ({})",
                    count(micro_batches.into(), "micro-batch", "micro-batches"),
                    self.device
                ),
            ),
            row("schedule", &schedule),
            row(
                "evaluations",
                &format!(
                    "{} of {}",
                    grouped(course.evaluations),
                    count(self.rows.into(), "row", "rows")
                ),
            ),
            row(
                "checkpoints",
                &format!(
                    "{} written, at most {} on disk at the same time",
                    grouped(course.checkpoints),
                    grouped(course.checkpoints_at_once)
                ),
            ),
        ]
    }
}

impl Probed {
    fn lines(&self, estimate: &Estimate) -> Vec<String> {
        let measured = &self.measured;
        let alone = measured.alone.map_or_else(String::new, |alone| {
            format!(
                " · one worker by itself, with the same share: {}",
                time(alone)
            )
        });
        let rate = f64::from(measured.rows) / measured.evaluation.max(f64::MIN_POSITIVE);
        let largest = self
            .worker_memory
            .iter()
            .map(|(_, bytes)| *bytes)
            .max()
            .unwrap_or_default();
        let limit = self
            .machine_memory
            .limit
            .map_or_else(String::new, |limit| format!(" of {}", bytes(limit)));
        let mut lines = vec![
            row(
                "start",
                &format!("{} until the first step", time(measured.start)),
            ),
            row(
                "a step",
                &format!(
                    "{} · {} · data wait {:.1} %{alone}",
                    times(estimate.step),
                    speed(estimate.images_per_second.mean),
                    100.0 * measured.data_wait
                ),
            ),
            row(
                "evaluation",
                &format!(
                    "{} a second, {} measured",
                    count(rate.round() as u64, "row", "rows"),
                    grouped(measured.rows.into())
                ),
            ),
            row(
                "checkpoint",
                &format!(
                    "{} in {}, for which steps took {} longer",
                    bytes(measured.checkpoint_bytes),
                    time(measured.checkpoint_written),
                    time(measured.checkpoint.max(0.0))
                ),
            ),
            row(
                "memory",
                &format!(
                    "{} the largest worker, {} the coordinator, {}{limit} in all",
                    bytes(largest),
                    bytes(self.coordinator_memory),
                    bytes(self.memory())
                ),
            ),
        ];
        if let Some((used, total)) = self.device_memory {
            let text = format!(
                "{} of {} in use on the fullest device",
                bytes(used),
                bytes(total)
            );
            lines.push(row("", &text));
        }
        lines
    }
}

/// Seconds as people read them; short ones in milliseconds.
fn time(seconds: f64) -> String {
    if seconds < 1.0 {
        return format!("{:.0} ms", 1e3 * seconds);
    }
    // Beyond what a duration holds, a run is not going to end.
    duration(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// With so many decimals, and more where there would be little left of it.
fn few_digits(number: f64, decimals: usize) -> String {
    format!("{number:.*}", if number < 1.0 { 3 } else { decimals })
}

fn times(seconds: Spread) -> String {
    spread(seconds, time)
}

/// The likely one, and the ends where they read differently.
fn spread(spread: Spread, text: impl Fn(f64) -> String) -> String {
    let [low, mean, high] = [spread.low, spread.mean, spread.high].map(text);
    if low == high {
        mean
    } else {
        format!("{mean} ({low} to {high})")
    }
}
