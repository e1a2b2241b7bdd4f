//! What HGAT_FC costs, counted from its layers: trainable values, and floating-point operations of one image's way
//! forward. Counting needs no tensor library, so a comparison can say what a variant's figure was bought with.
//!
//! Convention, that of PyTorch's `FlopCounterMode`: matrix products and convolutions count two operations for each
//! multiply-add; normalisation, activations, pooling and sums count nothing (under 1 % here). Of the definition: padding of
//! small groups that an implementation adds is not counted. A training step takes about three times as much: the way back
//! is two products for each of the way forward.
//!
//! Attention: `aᵀ[Wh_i‖Wh_j] = a₁ᵀWh_i + a₂ᵀWh_j`, two products of N values each, as computed here; written out over
//! pairs, as the reference does, it would be N² products of twice the length.

use serde::{Deserialize, Serialize};

/// What the figures mean, to be printed beside them.
pub const DEFINITION: &str = "flops: one image forward, two per multiply-add of convolutions and matrix products (as PyTorch's \
     FlopCounterMode counts); a training step takes about three times as much per image";

/// What determines the cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelShape {
    /// `model.backbone`, `resnet18` to `resnet152`.
    pub backbone: String,
    /// `model.graph`: `gat`, `none` or `fc`.
    pub graph: String,
    /// `data.size`: side of the square the model sees.
    pub size: u64,
    /// `model.hidden`.
    pub hidden: u64,
    /// `model.group_channels`.
    pub group_channels: u64,
    /// `model.class_channels`.
    pub class_channels: u64,
    /// Number of classes in each group.
    pub groups: Vec<u64>,
}

/// Trainable values and operations of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Trainable values.
    pub parameters: u64,
    /// Floating-point operations of one image forward.
    pub flops: u64,
}

impl Cost {
    fn of(parameters: u64, flops: u64) -> Self {
        Self { parameters, flops }
    }

    fn times(self, n: u64) -> Self {
        Self::of(n * self.parameters, n * self.flops)
    }
}

impl std::ops::Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self::of(self.parameters + other.parameters, self.flops + other.flops)
    }
}

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), |sum, cost| sum + cost)
    }
}

/// The model's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ModelCost {
    /// The ResNet.
    pub trunk: Cost,
    /// The heads, without what joins them.
    pub heads: Cost,
    /// What joins them: attention, or what stands in its place.
    pub graph: Cost,
}

impl ModelCost {
    /// All parts.
    #[must_use]
    pub fn total(&self) -> Cost {
        self.trunk + self.heads + self.graph
    }
}

/// Counts; `None` for a backbone or graph that there is not.
#[must_use]
pub fn model_cost(shape: &ModelShape) -> Option<ModelCost> {
    let (blocks, bottleneck) = match shape.backbone.as_str() {
        "resnet18" => ([2, 2, 2, 2], false),
        "resnet34" => ([3, 4, 6, 3], false),
        "resnet50" => ([3, 4, 6, 3], true),
        "resnet101" => ([3, 4, 23, 3], true),
        "resnet152" => ([3, 8, 36, 3], true),
        _ => return None,
    };
    let (trunk, features) = trunk(blocks, bottleneck, shape.size);
    let (group, class) = (shape.group_channels, shape.class_channels);
    let (groups, classes) = (shape.groups.len() as u64, shape.groups.iter().sum::<u64>());
    let heads = linear(features, shape.hidden)
        + linear(shape.hidden, group)
        + (linear(group, group / 2) + linear(group / 2, group)).times(groups)
        + linear(group, class).times(classes)
        + (linear(class, class / 2) + linear(class / 2, class)).times(classes)
        // The last layer, with its bias.
        + Cost::of(class + 1, 2 * class).times(classes);
    let of_groups = shape.groups.iter();
    let graph = match shape.graph.as_str() {
        "none" => Cost::default(),
        "gat" => attention(groups, group) + of_groups.map(|nodes| attention(*nodes, class)).sum(),
        "fc" => {
            // One layer over the flattened groups; within a group one layer, applied to each of its classes.
            let node = linear(class, class);
            let within = |nodes: &u64| Cost::of(node.parameters, nodes * node.flops);
            linear(groups * group, groups * group) + of_groups.map(within).sum()
        }
        _ => return None,
    };
    Some(ModelCost {
        trunk,
        heads,
        graph,
    })
}

/// A linear layer without bias, and its batch norm.
fn linear(from: u64, to: u64) -> Cost {
    Cost::of(from * to + 2 * to, 2 * from * to)
}

/// Attention over `nodes` of `channels`: Wh, the two halves of a over it, and the weighted sum; parameters W, a and beta.
fn attention(nodes: u64, channels: u64) -> Cost {
    let products = nodes * channels * channels + 2 * nodes * channels + nodes * nodes * channels;
    Cost::of(channels * channels + 2 * channels + 1, 2 * products)
}

/// A convolution without bias onto a square of `side`, and its batch norm.
fn convolution(from: u64, to: u64, kernel: u64, side: u64) -> Cost {
    let weights = from * to * kernel * kernel;
    Cost::of(weights + 2 * to, 2 * weights * side * side)
}

/// torchvision's ResNet without its last pooling and classifier; also gives the number of its output channels.
fn trunk(blocks: [u64; 4], bottleneck: bool, size: u64) -> (Cost, u64) {
    let mut side = size.div_ceil(2);
    let mut cost = convolution(3, 64, 7, side);
    // The max pooling.
    side = side.div_ceil(2);
    let mut from = 64;
    for (stage, count) in (0u32..).zip(blocks) {
        let width = 64 << stage;
        let to = if bottleneck { 4 * width } else { width };
        for index in 0..count {
            let before = side;
            let halves = stage > 0 && index == 0;
            if halves {
                side = side.div_ceil(2);
            }
            cost = cost
                + if bottleneck {
                    // The stride is in the 3×3 convolution: the first is still of the side before.
                    convolution(from, width, 1, before)
                        + convolution(width, width, 3, side)
                        + convolution(width, to, 1, side)
                } else {
                    convolution(from, width, 3, side) + convolution(width, to, 3, side)
                };
            if halves || from != to {
                cost = cost + convolution(from, to, 1, side);
            }
            from = to;
        }
    }
    (cost, from)
}
