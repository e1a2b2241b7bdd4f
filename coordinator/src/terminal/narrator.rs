//! What happens in a run, told line by line. Pure, so that whole outputs can be compared in tests.

use std::collections::{BTreeMap, VecDeque};

use super::figures::{bytes, count, duration, grouped, input_bound, percent, real, speed};
use super::row;
use crate::observer::RunEvent;

/// Skipped samples that are named; the rest is counted.
const SKIPPED_NAMED: u64 = 5;

/// Progress lines in an epoch where there is no bar.
const LINES_PER_EPOCH: u64 = 5;
/// Steps after which waiting for data is a trait of the run.
const SETTLED_STEPS: u64 = 50;

/// Warnings that are still on the screen when a run ends.
const WARNINGS: usize = 8;

/// Something to show.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// A line that stays.
    Said(String),
    /// A line of progress, for where there is no bar.
    Progress(String),
    /// Odd, but the run goes on.
    Warning(String),
    /// Where a bar stands.
    Bar {
        /// What it counts.
        what: String,
        /// Out of `total`.
        done: u64,
        /// The whole.
        total: u64,
        /// Beside it.
        note: String,
    },
}

/// Tells events in order.
#[derive(Debug)]
pub struct Narrator {
    epochs: u32,
    steps_per_epoch: u64,
    chance_map: Option<f64>,
    started: bool,
    /// Whether it was said that the run waits for pictures.
    input_bound: bool,
    ready: BTreeMap<String, ()>,
    skipped: BTreeMap<&'static str, u64>,
    /// The last of them.
    warnings: VecDeque<String>,
}

impl Narrator {
    /// For a run of that shape.
    #[must_use]
    pub fn new(epochs: u32, steps_per_epoch: u32, chance_map: Option<f64>) -> Self {
        Self {
            epochs,
            steps_per_epoch: u64::from(steps_per_epoch.max(1)),
            chance_map,
            started: false,
            input_bound: false,
            ready: BTreeMap::new(),
            skipped: BTreeMap::new(),
            warnings: VecDeque::new(),
        }
    }

    /// What of the sentence that a run ended with is news: its first cause may have been told when it came.
    #[must_use]
    pub fn untold<'a>(&self, reason: &'a str) -> &'a str {
        let rest_after =
            |warning: &String| reason.strip_prefix(warning.as_str())?.strip_prefix("; ");
        self.warnings.iter().find_map(rest_after).unwrap_or(reason)
    }

    /// What to show of an event.
    pub fn tell(&mut self, event: &RunEvent) -> Vec<Line> {
        match event {
            RunEvent::Reason(reason) if !self.started => {
                vec![Line::Bar {
                    what: reason.clone(),
                    done: 0,
                    total: 0,
                    note: String::new(),
                }]
            }
            RunEvent::Launched {
                worker_id,
                pid,
                device,
                log,
            } => {
                vec![said(
                    worker_id,
                    &format!("started on {device}, pid {pid}, log {}", log.display()),
                )]
            }
            RunEvent::Joined {
                worker_id,
                host,
                device,
                device_name,
                joined,
                wanted,
            } => {
                let name = if device_name.is_empty() || device_name == device {
                    String::new()
                } else {
                    format!(" ({device_name})")
                };
                let number = if joined > wanted {
                    format!("a spare beyond the {wanted} that are wanted")
                } else {
                    format!("{joined} of {wanted}")
                };
                vec![said(
                    worker_id,
                    &format!("joined from {host}, {device}{name}: {number}"),
                )]
            }
            RunEvent::GenerationFormed {
                number,
                members,
                begins_at_step,
                wanted,
            } if *number > 1 => {
                let workers = count(u64::from(*wanted), "worker", "workers");
                vec![said(
                    "generation",
                    &format!(
                        "{number} with {} of {workers} goes on after {}",
                        members.len(),
                        count(*begins_at_step, "step", "steps")
                    ),
                )]
            }
            RunEvent::Ready {
                worker_id,
                rank: 0,
                initial_state,
                parameters,
            } if !initial_state.is_empty()
                && self.ready.insert(worker_id.clone(), ()).is_none() =>
            {
                vec![said(
                    "weights",
                    &format!("{initial_state} · {} parameters", grouped(*parameters)),
                )]
            }
            RunEvent::Step {
                step,
                epoch,
                loss,
                images_per_second,
                data_wait,
            } => self.step(*step, *epoch, *loss, *images_per_second, *data_wait),
            RunEvent::EvaluationBegan { epoch, samples } => vec![self.scoring(*epoch, 0, *samples)],
            RunEvent::Scored {
                epoch,
                scored,
                samples,
            } => vec![self.scoring(*epoch, *scored, *samples)],
            RunEvent::Evaluated {
                epoch,
                metrics,
                duration: took,
                best,
                ..
            } => {
                let figures = &metrics.average_precision;
                let best = if *best { ", best so far" } else { "" };
                let text = format!(
                    "mAP {} (chance {}{best}) · CF1 {} · OF1 {} · {} images scored in {}",
                    percent(figures.map),
                    percent(self.chance_map.or(figures.chance_map)),
                    percent(metrics.at_threshold.cf1),
                    percent(metrics.at_threshold.of1),
                    grouped(u64::from(figures.samples)),
                    duration(*took)
                );
                let mut lines = vec![said(&self.epoch(*epoch), &text)];
                let further: Vec<String> = metrics
                    .further
                    .iter()
                    .map(|f| format!("{} {}", f.figure.words(), percent(f.map)))
                    .collect();
                if !further.is_empty() {
                    lines.push(said("", &format!("mAP of {}", further.join(" · "))));
                }
                lines
            }
            RunEvent::CheckpointCommitted {
                path, bytes: size, ..
            } => {
                vec![said(
                    "checkpoint",
                    &format!("{} · {}", path.display(), bytes(*size)),
                )]
            }
            RunEvent::SampleSkipped {
                split,
                sample,
                reason,
            } => self.skipped(split, *sample, reason),
            RunEvent::Warning(text) => {
                self.warnings.push_back(text.clone());
                if self.warnings.len() > WARNINGS {
                    self.warnings.pop_front();
                }
                vec![Line::Warning(text.clone())]
            }
            RunEvent::WorkerLog { worker_id, lines } => {
                let mut told = vec![Line::Said(format!("last lines of {worker_id}:"))];
                told.extend(
                    lines
                        .iter()
                        .map(|line| Line::Said(format!("  {worker_id} | {}", cut(line)))),
                );
                told
            }
            _ => Vec::new(),
        }
    }

    fn step(
        &mut self,
        step: u64,
        epoch: u32,
        loss: f64,
        images_per_second: f64,
        data_wait: f64,
    ) -> Vec<Line> {
        self.started = true;
        let done = step % self.steps_per_epoch + 1;
        let note = format!(
            "loss {} · {} · data wait {:.0} %",
            real(loss, 4),
            speed(images_per_second),
            100.0 * data_wait
        );
        let total = self.steps_per_epoch;
        let mut lines = vec![Line::Bar {
            what: self.epoch(epoch),
            done,
            total,
            note: note.clone(),
        }];
        if done == total || done.is_multiple_of(total.div_ceil(LINES_PER_EPOCH)) {
            let text = format!(
                "step {}/{} · {note}",
                grouped(step + 1),
                grouped(total * u64::from(self.epochs))
            );
            lines.push(Line::Progress(row(&self.epoch(epoch), &text)));
            // Once, and only where it is no matter of the first steps, before which nothing was decoded ahead.
            let hint =
                input_bound(data_wait).filter(|_| !self.input_bound && step >= SETTLED_STEPS);
            self.input_bound |= hint.is_some();
            lines.extend(hint.map(Line::Warning));
        }
        lines
    }

    fn scoring(&self, epoch: u32, done: u32, total: u32) -> Line {
        let (done, total) = (u64::from(done), u64::from(total));
        Line::Bar {
            what: self.epoch(epoch),
            done,
            total,
            note: "images scored".into(),
        }
    }

    fn skipped(&mut self, split: &'static str, sample: u32, reason: &str) -> Vec<Line> {
        let skipped = self.skipped.entry(split).or_default();
        *skipped += 1;
        match (*skipped).cmp(&SKIPPED_NAMED) {
            std::cmp::Ordering::Less | std::cmp::Ordering::Equal => {
                vec![Line::Warning(format!(
                    "{split} sample {sample} left out: {reason}"
                ))]
            }
            std::cmp::Ordering::Greater if *skipped == SKIPPED_NAMED + 1 => {
                vec![Line::Warning(format!(
                    "further {split} samples left out are listed in events.jsonl and counted at the end"
                ))]
            }
            std::cmp::Ordering::Greater => Vec::new(),
        }
    }

    /// How many samples were left out, by split.
    #[must_use]
    pub fn skipped_samples(&self) -> Vec<(&'static str, u64)> {
        self.skipped
            .iter()
            .map(|(split, number)| (*split, *number))
            .collect()
    }

    fn epoch(&self, epoch: u32) -> String {
        let width = self.epochs.to_string().len();
        format!("epoch {:>width$}/{}", epoch + 1, self.epochs)
    }
}

fn said(label: &str, text: &str) -> Line {
    Line::Said(row(label, text))
}

/// A log line that fits a screen; the whole is in the log.
fn cut(line: &str) -> String {
    const LONGEST: usize = 300;
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}
