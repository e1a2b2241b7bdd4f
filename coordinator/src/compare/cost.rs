//! What a side's figure was bought with.

use domain::comparison::seeds::{Spread, spread};
use domain::model_cost::{ModelCost, ModelShape, model_cost};
use serde::Serialize;

use super::run::Run;

/// Size of the model, and time. Times are measured, evaluation and checkpoints included, and hold for the machine that
/// the runs were on and what else it did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SideCost {
    /// Counted from the config; `None` where the classes' groups are not known.
    pub model: Option<ModelCost>,
    /// Wall time of an epoch over the runs, seconds.
    pub seconds_per_epoch: Option<Spread>,
    /// That times workers, in hours.
    pub worker_hours_per_epoch: Option<Spread>,
    /// `run.workers` of the first run.
    pub workers: Option<u32>,
}

impl SideCost {
    pub(super) fn of(runs: &[Run]) -> Self {
        let seconds = |run: &Run| {
            let images = run.summary.training_images? as f64;
            run.summary
                .images_per_second
                .filter(|pace| *pace > 0.0)
                .map(|pace| images / pace)
        };
        let hours = |run: &Run| {
            let workers = f64::from(run.config.run.workers?);
            Some(seconds(run)? * workers / 3600.0)
        };
        let all = |of: &dyn Fn(&Run) -> Option<f64>| {
            spread(&runs.iter().filter_map(of).collect::<Vec<_>>())
        };
        Self {
            model: runs.first().and_then(model),
            seconds_per_epoch: all(&seconds),
            worker_hours_per_epoch: all(&hours),
            workers: runs.first().and_then(|run| run.config.run.workers),
        }
    }
}

fn model(run: &Run) -> Option<ModelCost> {
    if run.groups.is_empty() {
        return None;
    }
    let model = &run.config.model;
    model_cost(&ModelShape {
        backbone: model.backbone.clone(),
        graph: model.graph.clone(),
        size: run.config.data.size.into(),
        hidden: model.hidden.into(),
        group_channels: model.group_channels.into(),
        class_channels: model.class_channels.into(),
        groups: run
            .groups
            .iter()
            .map(|(_, classes)| classes.len() as u64)
            .collect(),
    })
}
