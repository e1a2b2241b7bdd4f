//! Which model a weight file of another program is of: read from the names and shapes of its tensors, and from the
//! command line where they cannot tell.

use std::path::PathBuf;

use clap::Args;
use data::coco::{Class, Group, Options, SplitPaths, read_split};
use data::scenes::coco_categories;
use model::weights::WeightFile;
use model::{Backbone, Graph, Residual};

use super::Description;
use crate::error::WorkerError;

/// ImageNet's mean and deviation of red, green and blue in 0..1, which every published trunk was trained with.
const IMAGENET: ([f64; 3], [f64; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// What a weight file that this program did not write does not say.
#[derive(Debug, Args)]
#[command(next_help_heading = "For weight files that do not describe themselves (.pth, .pth.tar)")]
pub(crate) struct Foreign {
    /// Annotation file with the classes and groups, in order [default: COCO's 80 in 12]
    #[arg(long, value_name = "FILE")]
    annotations: Option<PathBuf>,
    /// Graph variant: gat, none, fc [default: what the names say]
    #[arg(long)]
    graph: Option<String>,
    /// Residual form: sum, resnet
    #[arg(long, default_value = "sum")]
    residual: String,
    /// Side of the pictures, pixels
    #[arg(long, default_value_t = 448)]
    size: u32,
}

impl Foreign {
    /// The description of a file that has none.
    ///
    /// # Errors
    /// When names and shapes are not those of HGAT_FC, or the classes do not fit.
    pub(crate) fn describe(&self, file: &WeightFile) -> Result<Description, WorkerError> {
        let refuse = |reason: String| WorkerError::Input {
            what: "weight file",
            path: file.path.clone(),
            reason,
        };
        let width = |name: &str| {
            let shape = file.tensors.get(name).map(tch::Tensor::size);
            shape
                .and_then(|shape| u32::try_from(*shape.first()?).ok())
                .ok_or_else(|| refuse(format!("has no {name}, so it is not of a whole HGAT_FC")))
        };
        let backbone = backbone(file)
            .ok_or_else(|| refuse("its trunk is none of resnet18 to resnet152".to_owned()))?;
        let graph = match &self.graph {
            Some(word) => word,
            None if file.tensors.contains_key("heads.gat1.W") => "gat",
            None if file.tensors.contains_key("heads.gat1.fc.fc.weight") => "fc",
            None => "none",
        };
        // Words from outside are refused here; what the model is built from is parsed from the description.
        Graph::parse(graph)?;
        Residual::parse(&self.residual)?;
        let (classes, groups) = self.classes()?;
        let held = (0..)
            .take_while(|k| {
                file.tensors
                    .contains_key(&format!("heads.class_fcs.{k}.fc.weight"))
            })
            .count();
        if held != classes.len() {
            let source = match &self.annotations {
                Some(path) => format!("{} lists", path.display()),
                None => "COCO has; give their annotation file with --annotations".to_owned(),
            };
            let listed = classes.len();
            return Err(refuse(format!(
                "has {held} classes and not the {listed} that {source}"
            )));
        }
        Ok(Description {
            backbone: backbone.to_owned(),
            graph: graph.to_owned(),
            residual: self.residual.clone(),
            bn_momentum: 0.1, // immaterial for predictions
            hidden: width("heads.reduce_fc.0.fc.weight")?,
            group_channels: width("heads.reduce_fc.1.fc.weight")?,
            class_channels: width("heads.class_fcs.0.fc.weight")?,
            classes: classes.into_iter().map(|class| class.name).collect(),
            groups: groups
                .into_iter()
                .map(|group| {
                    let members = group.classes.into_iter().map(|class| class as u32);
                    (group.name, members.collect())
                })
                .collect(),
            size: self.size,
            mean: IMAGENET.0.to_vec(),
            std: IMAGENET.1.to_vec(),
        })
    }

    fn classes(&self) -> Result<(Vec<Class>, Vec<Group>), WorkerError> {
        let Some(annotations) = &self.annotations else {
            return Ok(coco_categories());
        };
        let paths = SplitPaths {
            annotations: annotations.clone(),
            images: PathBuf::new(),
        };
        let file =
            read_split("val", &paths, &Options::default()).map_err(|error| WorkerError::Input {
                what: "annotation file",
                path: annotations.display().to_string(),
                reason: error.to_string(),
            })?;
        Ok((file.classes, file.groups))
    }
}

/// The trunk that has as many blocks of the same kind in each of its four stages.
fn backbone(file: &WeightFile) -> Option<&'static str> {
    let has = |stage: usize, block: usize, convolution: usize| {
        let name = format!("features.{}.{block}.conv{convolution}.weight", 4 + stage);
        file.tensors.contains_key(&name)
    };
    let blocks = [0, 1, 2, 3].map(|stage| (0..).take_while(|&block| has(stage, block, 1)).count());
    let bottleneck = has(0, 0, 3);
    Backbone::NAMES.into_iter().find(|name| {
        Backbone::parse(name).is_ok_and(|backbone| {
            backbone.blocks() == blocks && backbone.bottleneck() == bottleneck
        })
    })
}
