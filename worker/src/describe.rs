//! What a weight file says of its model: enough to use the file alone.

mod guess;

use std::collections::BTreeMap;

use model::{Backbone, Graph, ModelConfig, Residual};
use proto::v1;
use serde::{Deserialize, Serialize};

use crate::error::WorkerError;

pub(crate) use guess::Foreign;

/// The key in `model.safetensors`' metadata.
const KEY: &str = "hgat_fc";

/// The model and the pictures it expects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Description {
    backbone: String,
    graph: String,
    residual: String,
    bn_momentum: f64,
    hidden: u32,
    group_channels: u32,
    class_channels: u32,
    /// In class order.
    pub(crate) classes: Vec<String>,
    /// (name, classes) in group order.
    pub(crate) groups: Vec<(String, Vec<u32>)>,
    /// Side of the pictures, pixels.
    pub(crate) size: u32,
    /// RGB in 0..1.
    pub(crate) mean: Vec<f64>,
    /// RGB in 0..1.
    pub(crate) std: Vec<f64>,
}

impl Description {
    /// Of a run's model.
    pub(crate) fn of(model: &v1::ModelSpec, data: &v1::DataSpec) -> Self {
        Self {
            backbone: model.backbone.clone(),
            graph: model.graph.clone(),
            residual: model.residual.clone(),
            bn_momentum: model.bn_momentum,
            hidden: model.hidden,
            group_channels: model.group_channels,
            class_channels: model.class_channels,
            classes: model.classes.clone(),
            groups: model
                .groups
                .iter()
                .map(|group| (group.name.clone(), group.classes.clone()))
                .collect(),
            size: data.size,
            mean: data.mean.clone(),
            std: data.std.clone(),
        }
    }

    /// From a file's metadata.
    pub(crate) fn read(metadata: &BTreeMap<String, String>) -> Option<Self> {
        serde_json::from_str(metadata.get(KEY)?).ok()
    }

    /// For a file's metadata.
    pub(crate) fn metadata(&self) -> BTreeMap<String, String> {
        let text = serde_json::to_string(self).unwrap_or_default();
        // One entry: the safetensors crate writes several in an order that differs from process to process.
        BTreeMap::from([(KEY.to_owned(), text)])
    }

    /// The model's config.
    ///
    /// # Errors
    /// When a word is no choice of its key.
    pub(crate) fn config(&self, last_bias: Option<f64>) -> Result<ModelConfig, WorkerError> {
        Ok(ModelConfig {
            backbone: Backbone::parse(&self.backbone)?,
            graph: Graph::parse(&self.graph)?,
            residual: Residual::parse(&self.residual)?,
            bn_momentum: self.bn_momentum,
            hidden: i64::from(self.hidden),
            group_channels: i64::from(self.group_channels),
            class_channels: i64::from(self.class_channels),
            last_bias,
            groups: self
                .groups
                .iter()
                .map(|(_, classes)| classes.iter().map(|&class| class as usize).collect())
                .collect(),
        })
    }
}
