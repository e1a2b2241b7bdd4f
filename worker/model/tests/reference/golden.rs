//! One case of the reference: its shape, its weights, and what it computes.

use std::collections::BTreeMap;
use std::path::Path;

use model::{Backbone, Graph, HgatFc, ModelConfig, Residual};
use tch::{Device, Kind, Tensor};

pub(crate) struct Golden {
    pub(crate) name: String,
    config: ModelConfig,
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

impl Golden {
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let about = metadata.metadata().clone().unwrap();
        let number = |key: &str| about[key].parse::<i64>().unwrap();
        let mut next = 0;
        let groups = about["per_group"]
            .split(',')
            .map(|size| {
                let size: usize = size.parse().unwrap();
                next += size;
                (next - size..next).collect()
            })
            .collect();
        let config = ModelConfig {
            backbone: Backbone::parse(&about["backbone"]).unwrap(),
            graph: Graph::parse(&about["graph"]).unwrap(),
            residual: Residual::parse(&about["residual"]).unwrap(),
            bn_momentum: 0.1,
            hidden: number("hidden"),
            group_channels: number("gc"),
            class_channels: number("cc"),
            last_bias: None,
            groups,
        };
        let tensors = Tensor::read_safetensors(path)
            .unwrap()
            .into_iter()
            .collect();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        Self {
            name,
            config,
            tensors,
        }
    }

    pub(crate) fn model(&self, kind: Kind) -> HgatFc {
        let mut model = HgatFc::new(&self.config, Device::Cpu, kind, 7).unwrap();
        let state = self.under("state/");
        let ours: Vec<String> = model.shapes().unwrap().into_keys().collect();
        let theirs: Vec<String> = state.keys().cloned().collect();
        assert_eq!(ours, theirs, "{}: the names of the state_dict", self.name);
        model.import(&state).unwrap();
        model
    }

    pub(crate) fn under(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        self.tensors
            .iter()
            .filter_map(|(name, tensor)| {
                Some((
                    name.strip_prefix(prefix)?.to_owned(),
                    tensor.shallow_clone(),
                ))
            })
            .collect()
    }

    pub(crate) fn input(&self, kind: Kind) -> (Tensor, Tensor) {
        // Channels last, as the loader gives them.
        let x = self.tensors["x"]
            .to_kind(kind)
            .permute([0, 2, 3, 1])
            .contiguous()
            .permute([0, 3, 1, 2]);
        (x, self.tensors["y"].to_kind(kind))
    }
}
