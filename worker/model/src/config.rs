//! Which model to build.

use crate::{ModelError, Result};

/// The trunk: a ResNet (He et al. 2015, "Deep Residual Learning for Image Recognition", table 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backbone {
    /// 18 layers of basic blocks.
    ResNet18,
    /// 34 layers of basic blocks.
    ResNet34,
    /// 50 layers of bottleneck blocks.
    ResNet50,
    /// 101 layers of bottleneck blocks.
    ResNet101,
    /// 152 layers of bottleneck blocks.
    ResNet152,
}

impl Backbone {
    /// The names of all trunks.
    pub const NAMES: [&'static str; 5] =
        ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"];

    /// The trunk of that name.
    ///
    /// # Errors
    /// [`ModelError::UnknownBackbone`].
    pub fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "resnet18" => Self::ResNet18,
            "resnet34" => Self::ResNet34,
            "resnet50" => Self::ResNet50,
            "resnet101" => Self::ResNet101,
            "resnet152" => Self::ResNet152,
            _ => {
                return Err(ModelError::UnknownBackbone {
                    name: name.to_owned(),
                });
            }
        })
    }

    /// Blocks in each of the four stages.
    #[must_use]
    pub fn blocks(self) -> [usize; 4] {
        match self {
            Self::ResNet18 => [2, 2, 2, 2],
            Self::ResNet34 | Self::ResNet50 => [3, 4, 6, 3],
            Self::ResNet101 => [3, 4, 23, 3],
            Self::ResNet152 => [3, 8, 36, 3],
        }
    }

    /// Whether its blocks are bottlenecks (1×1, 3×3, 1×1) rather than basic ones (3×3, 3×3).
    #[must_use]
    pub fn bottleneck(self) -> bool {
        !matches!(self, Self::ResNet18 | Self::ResNet34)
    }

    /// Channels of its last feature map.
    #[must_use]
    pub fn channels(self) -> i64 {
        if self.bottleneck() { 2048 } else { 512 }
    }
}

/// What joins the nodes of the head's two graphs (`model.graph`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Graph {
    /// Graph attention: experiment 1.
    Gat,
    /// Nothing: experiment 2, the baseline.
    None,
    /// Fully connected layers in attention's place: experiment 3.
    Fc,
}

impl Graph {
    /// The variant of that name.
    ///
    /// # Errors
    /// [`ModelError::UnknownChoice`].
    pub fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "gat" => Self::Gat,
            "none" => Self::None,
            "fc" => Self::Fc,
            _ => {
                return Err(ModelError::UnknownChoice {
                    key: "model.graph",
                    value: name.to_owned(),
                    choices: "gat, none, fc",
                });
            }
        })
    }
}

/// The form of the head's residual blocks (`model.residual`); both have the same parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// `x + relu(bn(fc2(relu(bn(fc1(x))))))`: the author's later rewrite.
    Sum,
    /// `relu(x + bn(fc2(relu(bn(fc1(x))))))`: the usual convention.
    Resnet,
}

impl Residual {
    /// The form of that name.
    ///
    /// # Errors
    /// [`ModelError::UnknownChoice`].
    pub fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "sum" => Self::Sum,
            "resnet" => Self::Resnet,
            _ => {
                return Err(ModelError::UnknownChoice {
                    key: "model.residual",
                    value: name.to_owned(),
                    choices: "sum, resnet",
                });
            }
        })
    }
}

/// Everything that decides the model's shape and start.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The trunk.
    pub backbone: Backbone,
    /// What joins nodes.
    pub graph: Graph,
    /// The form of the residual blocks.
    pub residual: Residual,
    /// Momentum of the head's batch norms; the trunk's is torchvision's 0.1.
    pub bn_momentum: f64,
    /// Width inside `reduce_fc`.
    pub hidden: i64,
    /// Channels of a group node.
    pub group_channels: i64,
    /// Channels of a class node.
    pub class_channels: i64,
    /// Bias the last layers start with; `None`: PyTorch's default.
    pub last_bias: Option<f64>,
    /// Class indices of each group. Inside the head, nodes are in this order ("group-major"); logits are in class order.
    pub groups: Vec<Vec<usize>>,
}

impl ModelConfig {
    /// Number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }

    /// Checks what the types leave open.
    pub(crate) fn check(&self) -> Result<()> {
        let classes = self.classes();
        let refuse = |reason: String| Err(ModelError::Groups { classes, reason });
        if let Some(empty) = self.groups.iter().position(Vec::is_empty) {
            return refuse(format!("group {empty} is empty"));
        }
        if classes == 0 {
            return refuse("there is none".to_owned());
        }
        let mut seen = vec![false; classes];
        for &class in self.groups.iter().flatten() {
            match seen.get_mut(class) {
                None => return refuse(format!("class {class} is past the end")),
                Some(true) => return refuse(format!("class {class} is in two")),
                Some(seen) => *seen = true,
            }
        }
        let widths = [
            ("model.hidden", self.hidden, 1),
            ("model.group_channels", self.group_channels, 2),
            ("model.class_channels", self.class_channels, 2),
        ];
        for (key, value, unit) in widths {
            if value < unit || value % unit != 0 {
                let reason = if unit == 2 {
                    "it must be even and positive"
                } else {
                    "it must be positive"
                };
                return Err(ModelError::Width { key, value, reason });
            }
        }
        Ok(())
    }
}
