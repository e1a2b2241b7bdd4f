//! The lines a run begins with: what it trains, on what, where, and how to look at it.

use std::path::{Path, PathBuf};

use data::coco::{Dataset, Split};
use domain::run_plan::RunPlan;

use super::figures::{count, grouped, short};
use super::row;
use crate::config::Config;
use crate::machine::Placement;

/// What the opening tells.
#[derive(Clone, Debug)]
pub struct Opening<'a> {
    /// The run's name.
    pub run_id: &'a str,
    /// As the person gave it.
    pub run_dir: &'a Path,
    /// `http://HOST:PORT`.
    pub address: &'a str,
    /// The checked config.
    pub config: &'a Config,
    /// Both splits.
    pub dataset: &'a Dataset,
    /// Where workers compute.
    pub placement: &'a Placement,
    /// What the run does and in which order.
    pub plan: &'a RunPlan,
    /// The steps before, and the folder of, the checkpoint it goes on from.
    pub resumed: Option<(u64, PathBuf)>,
    /// Whether worker processes of an earlier coordinator live: they are further than the checkpoint.
    pub workers_live: bool,
}

impl Opening<'_> {
    /// The lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let (config, dataset) = (self.config, self.dataset);
        let mut lines = vec![format!(
            "coordinator {} · run {}",
            env!("CARGO_PKG_VERSION"),
            self.run_id
        )];
        lines.push(row("data", &self.data()));
        lines.push(row("", &labels(dataset)));
        let model = &config.model;
        let graph = match model.graph.as_str() {
            "none" => "without graph",
            "fc" => "fully connected instead of attention",
            _ => "graph attention",
        };
        lines.push(row(
            "model",
            &format!(
                "HGAT_FC ({graph}) on {} at {} px · group nodes {}, class nodes {}",
                model.backbone, config.data.size, model.group_channels, model.class_channels
            ),
        ));
        lines.push(row("training", &self.training()));
        let devices = match &self.placement.devices[..] {
            [] => "nothing".to_owned(),
            [one] => one.clone(),
            [first, ..] if first == "cpu" => "cpu".to_owned(),
            [first, .., last] if first == last => format!("a device of {first} each"),
            [first, .., last] => format!("{first} to {last}"),
        };
        let workers = count(self.placement.devices.len() as u64, "worker", "workers");
        let threads = self.threads();
        lines.push(row(
            "workers",
            &format!(
                "{workers} on {devices} ({}) · {threads} ({})",
                self.placement.device_reason, self.placement.threads_reason
            ),
        ));
        lines.push(row("run dir", &self.run_dir.display().to_string()));
        let resumed = self.resumed.as_ref().map(|(step, checkpoint)| {
            let steps = count(*step, "step", "steps");
            format!("after {steps} from {}", checkpoint.display())
        });
        let resuming = match (resumed, self.workers_live) {
            (Some(resumed), false) => Some(resumed),
            (Some(resumed), true) => Some(format!(
                "with the workers that live and what they have done by now; without them {resumed}"
            )),
            (None, true) => Some("with the workers that live".to_owned()),
            (None, false) => None,
        };
        lines.extend(resuming.map(|resuming| row("resuming", &resuming)));
        lines.push(row(
            "gRPC",
            &format!(
                "{} · look: coordinator status --run-dir {}",
                self.address,
                self.run_dir.display()
            ),
        ));
        lines.push(String::new());
        lines
    }

    /// Compute and decoding threads of a worker, as far as they are known here.
    fn threads(&self) -> String {
        let compute = |threads: u32| count(threads.into(), "thread", "threads");
        match (self.placement.threads, self.config.train.threads) {
            (Some(threads), _) if threads.decoding == 0 => {
                format!("{} each", compute(threads.compute))
            }
            (Some(threads), _) => {
                let (computing, decoding) = (compute(threads.compute), threads.decoding);
                format!("{computing} and {decoding} to decode each")
            }
            (None, Some(threads)) => format!("{} each", compute(threads)),
            (None, None) => "threads".to_owned(),
        }
    }

    fn data(&self) -> String {
        let dataset = self.dataset;
        let folder = match &self.config.data.root {
            Some(root) => root.as_path(),
            None => dataset.train.annotation_file.as_path(),
        };
        format!(
            "{} · {} training and {} validation images",
            folder.display(),
            grouped(dataset.train.samples.len() as u64),
            grouped(dataset.val.samples.len() as u64)
        )
    }

    fn training(&self) -> String {
        let train = &self.config.train;
        let micro_batches = u64::from(train.global_batch / train.micro_batch.max(1));
        let schedule = match (train.schedule.as_str(), train.warmup) {
            (schedule, warmup) if warmup > 0.0 => {
                format!("{schedule} after {:.0} % warm-up", 100.0 * warmup)
            }
            (schedule, _) => schedule.to_owned(),
        };
        format!(
            "{} of {} · {} of {} · {}, rates {} (trunk) and {} (heads), {schedule}",
            count(u64::from(train.epochs), "epoch", "epochs"),
            count(u64::from(self.plan.steps_per_epoch()), "step", "steps"),
            count(micro_batches, "micro-batch", "micro-batches"),
            train.micro_batch,
            train.optimizer,
            short(train.learning_rate_trunk),
            short(train.learning_rate_head)
        )
    }
}

fn labels(dataset: &Dataset) -> String {
    let classes = count(dataset.classes.len() as u64, "class", "classes");
    let groups = count(dataset.groups.len() as u64, "group", "groups");
    let fate = |split: &Split| if split.dropped > 0 { "dropped" } else { "kept" };
    let unlabelled = match (dataset.train.unlabelled, dataset.val.unlabelled) {
        (0, 0) => "every image has a label".to_owned(),
        (train, val) => {
            let fate = if train > 0 {
                fate(&dataset.train)
            } else {
                fate(&dataset.val)
            };
            format!(
                "without any label: {} training, {} validation ({fate})",
                grouped(train),
                grouped(val)
            )
        }
    };
    format!("{classes} in {groups} · {unlabelled}")
}
