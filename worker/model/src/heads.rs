//! The head of HGAT_FC: groups, attention between them, classes, attention within each group, one logit a class.
//!
//! Inside, nodes are group-major: group 0's classes in the order of its list, then group 1's, …; so are the indices in
//! parameter names, as in the reference, which knows only data sets whose class order is that order. Logits leave in
//! class order.
//!
//! The reference loops over classes; here layers of one shape are stacked and computed at once (`[K, B, C]`).
//!
//! In the `fc` variant the published notes flatten the groups with a reshape whose batch size comes from the wrong
//! axis, which mixes samples. Here each sample's groups are flattened by themselves: `[B, G, C]` to `[B, G·C]`.

use tch::Tensor;

use crate::build::{Builder, Init};
use crate::gat::Attention;
use crate::linear::{BasicLinear, ResidualBlock};
use crate::norm::{Mode, Statistics};
use crate::{Graph, ModelConfig, Result, StackedProduct};

/// What joins the group nodes, and the class nodes within each group.
#[derive(Debug)]
enum Join {
    Attention {
        between: Attention,
        within: Attention,
    },
    Nothing,
    Linear {
        between: BasicLinear,
        within: BasicLinear,
    },
}

/// The attention of one forward pass; nothing in variants without.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// `[1, B, G, G]`
    pub(crate) between: Option<Tensor>,
    /// `[G, B, P, P]`, P the classes of the largest group; 0 where a group has none.
    pub(crate) within: Option<Tensor>,
}

/// Where nodes lie.
#[derive(Debug)]
struct Places {
    /// Classes in each group.
    sizes: Vec<i64>,
    /// `[G]` zeros.
    same_for_groups: Tensor,
    /// `[N]`: the group of each node.
    group_of_node: Tensor,
    /// `[G · P]`: the node at each place of groups padded to P, 0 where there is none.
    node_at_place: Tensor,
    /// `[N]`: the place of each node.
    place_of_node: Tensor,
    /// `[G, 1, 1, P]`: true where there is none.
    absent: Tensor,
    /// `[N]`: the node of each class; none where the orders agree.
    node_of_class: Option<Tensor>,
}

/// The head.
#[derive(Debug)]
pub(crate) struct Heads {
    reduce: [BasicLinear; 2],
    groups: ResidualBlock,
    join: Join,
    classes: BasicLinear,
    last_block: ResidualBlock,
    /// `[N, 1, C]`
    last_weight: Tensor,
    /// `[N, 1]`
    last_bias: Tensor,
    product: StackedProduct,
    places: Places,
}

impl Heads {
    pub(crate) fn new(
        builder: &mut Builder,
        config: &ModelConfig,
        places_on: tch::Device,
    ) -> Result<Self> {
        let (gc, cc, momentum) = (
            config.group_channels,
            config.class_channels,
            config.bn_momentum,
        );
        let (g, n) = (config.groups.len(), config.classes());
        let numbered = |name: &str, count: usize, rest: &str| -> Vec<String> {
            (0..count)
                .map(|index| format!("heads.{name}.{index}{rest}"))
                .collect()
        };
        let channels = config.backbone.channels();
        let reduce = [
            BasicLinear::new(
                builder,
                &["heads.reduce_fc.0".into()],
                [channels, config.hidden],
                true,
                momentum,
            )?,
            BasicLinear::new(
                builder,
                &["heads.reduce_fc.1".into()],
                [config.hidden, gc],
                true,
                momentum,
            )?,
        ];
        let groups = ResidualBlock::new(
            builder,
            &numbered("group_fcs", g, ""),
            gc,
            config.residual,
            momentum,
        )?;
        let classes = BasicLinear::new(
            builder,
            &numbered("class_fcs", n, ""),
            [gc, cc],
            true,
            momentum,
        )?;
        let join = match config.graph {
            Graph::None => Join::Nothing,
            Graph::Gat => Join::Attention {
                between: Attention::new(builder, &["heads.gat1".into()], gc)?,
                within: Attention::new(builder, &numbered("gat2s", g, ""), cc)?,
            },
            Graph::Fc => {
                let flat = g as i64 * gc;
                Join::Linear {
                    between: BasicLinear::new(
                        builder,
                        &["heads.gat1.fc".into()],
                        [flat, flat],
                        true,
                        momentum,
                    )?,
                    within: BasicLinear::new(
                        builder,
                        &numbered("gat2s", g, ".fc"),
                        [cc, cc],
                        true,
                        momentum,
                    )?,
                }
            }
        };
        let last_block = ResidualBlock::new(
            builder,
            &numbered("fcs", n, ".0"),
            cc,
            config.residual,
            momentum,
        )?;
        let last = numbered("fcs", n, ".1");
        let last_weight = builder.stack(&last, "weight", &[1, cc], Init::linear(cc))?;
        let bias = config.last_bias.map_or(Init::linear(cc), Init::Constant);
        let last_bias = builder.stack(&last, "bias", &[1], bias)?;
        let places = Places::new(&config.groups, places_on)?;
        Ok(Self {
            reduce,
            groups,
            join,
            classes,
            last_block,
            last_weight,
            last_bias,
            product: builder.operations.product,
            places,
        })
    }

    /// Features `[B, F, h, w]` to logits `[B, N]` in class order. Attention is left in `seen`, if someone wants to see it.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        statistics: &Statistics,
        mode: Mode<'_>,
        mut seen: Option<&mut Seen>,
    ) -> Result<Tensor> {
        let x = x
            .f_adaptive_max_pool2d([1, 1])?
            .0
            .f_flatten(1, -1)?
            .f_unsqueeze(0)?; // [1, B, F]
        let x = self.reduce[0].forward(&x, statistics, mode)?;
        let x = self.reduce[1].forward(&x, statistics, mode)?; // [1, B, C]
        // Not expanded: libtorch's order of the sum over groups, which that is backwards, depends on how many samples there are.
        let x = x.f_index_select(0, &self.places.same_for_groups)?;
        let x = self.groups.forward(&x, statistics, mode)?; // [G, B, C]
        let x = self.between(&x, statistics, mode, seen.as_deref_mut())?;
        let x = x.f_index_select(0, &self.places.group_of_node)?; // [N, B, C]
        let x = self.classes.forward(&x, statistics, mode)?; // [N, B, c]
        let x = self.within(&x, statistics, mode, seen)?;
        let x = self.last_block.forward(&x, statistics, mode)?;
        let x = x.f_to_kind(self.last_weight.kind())?;
        let batch = x.size3()?.1;
        let x = (self.product)(&self.last_weight, &x, mode.sizes(&batch))?.f_squeeze_dim(2)?; // [B, N]
        let logits = x.f_add(&self.last_bias.f_view([1, -1])?)?;
        match &self.places.node_of_class {
            Some(nodes) => Ok(logits.f_index_select(1, nodes)?),
            None => Ok(logits),
        }
    }

    /// `[G, B, C]` to the same.
    fn between(
        &self,
        x: &Tensor,
        statistics: &Statistics,
        mode: Mode<'_>,
        seen: Option<&mut Seen>,
    ) -> Result<Tensor> {
        match &self.join {
            Join::Nothing => Ok(x.shallow_clone()),
            Join::Attention { between, .. } => {
                let mut seen = seen.map(|seen| &mut seen.between);
                mode.one_by_one(x, 1, |x, _| {
                    let x = x.f_transpose(0, 1)?.f_unsqueeze(0)?; // one graph: [1, B, G, C]
                    Ok(between
                        .forward(&x, None, seen.as_deref_mut())?
                        .f_squeeze_dim(0)?
                        .f_transpose(0, 1)?)
                })
            }
            Join::Linear { between, .. } => {
                let (g, batch, channels) = x.size3()?;
                let flat = x.f_transpose(0, 1)?.f_reshape([1, batch, g * channels])?;
                let y = between.forward(&flat, statistics, mode)?;
                Ok(y.f_reshape([batch, g, channels])?.f_transpose(0, 1)?)
            }
        }
    }

    /// `[N, B, C]` to the same, each group by itself.
    fn within(
        &self,
        x: &Tensor,
        statistics: &Statistics,
        mode: Mode<'_>,
        mut seen: Option<&mut Seen>,
    ) -> Result<Tensor> {
        mode.one_by_one(x, 1, |x, mode| {
            self.within_one(x, statistics, mode, seen.as_deref_mut())
        })
    }

    fn within_one(
        &self,
        x: &Tensor,
        statistics: &Statistics,
        mode: Mode<'_>,
        seen: Option<&mut Seen>,
    ) -> Result<Tensor> {
        let places = &self.places;
        let (_, batch, channels) = x.size3()?;
        match &self.join {
            Join::Nothing => Ok(x.shallow_clone()),
            Join::Attention { within, .. } => {
                let g = places.sizes.len() as i64;
                let padded = x.f_index_select(0, &places.node_at_place)?; // [G · P, B, C]
                let graphs = padded.f_view([g, -1, batch, channels])?.f_transpose(1, 2)?; // [G, B, P, C]
                let seen = seen.map(|seen| &mut seen.within);
                let y = within.forward(&graphs, Some(&places.absent), seen)?;
                let y = y.f_transpose(1, 2)?.f_reshape([-1, batch, channels])?;
                Ok(y.f_index_select(0, &places.place_of_node)?)
            }
            Join::Linear { within, .. } => {
                // Each group's batch norm sees the rows of its own nodes and no padding.
                let rows = x
                    .f_split_with_sizes(&places.sizes, 0)?
                    .iter()
                    .map(|group| Ok(group.f_reshape([-1, channels])?))
                    .collect::<Result<Vec<_>>>()?;
                let rows = within.forward_each(&rows, statistics, mode)?;
                Ok(Tensor::f_cat(&rows, 0)?.f_view([-1, batch, channels])?)
            }
        }
    }
}

impl Places {
    fn new(groups: &[Vec<usize>], device: tch::Device) -> Result<Self> {
        let longest = groups.iter().map(Vec::len).max().unwrap_or(0);
        let node_class: Vec<usize> = groups.iter().flatten().copied().collect();
        let (mut group_of_node, mut place_of_node) = (Vec::new(), Vec::new());
        let (mut node_at_place, mut absent) = (Vec::new(), Vec::new());
        for (group, classes) in groups.iter().enumerate() {
            for place in 0..longest {
                let there = place < classes.len();
                node_at_place.push(if there { group_of_node.len() as i64 } else { 0 });
                absent.push(!there);
                if there {
                    group_of_node.push(group as i64);
                    place_of_node.push((group * longest + place) as i64);
                }
            }
        }
        let mut node_of_class = vec![0i64; node_class.len()];
        for (node, &class) in node_class.iter().enumerate() {
            node_of_class[class] = node as i64;
        }
        let in_order = node_class
            .iter()
            .enumerate()
            .all(|(node, &class)| node == class);
        let there = |values: &[i64]| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(values)?.f_to_device(device)?)
        };
        Ok(Self {
            sizes: groups.iter().map(|classes| classes.len() as i64).collect(),
            same_for_groups: there(&vec![0; groups.len()])?,
            group_of_node: there(&group_of_node)?,
            node_at_place: there(&node_at_place)?,
            place_of_node: there(&place_of_node)?,
            absent: Tensor::f_from_slice(&absent)?
                .f_view([groups.len() as i64, 1, 1, longest as i64])?
                .f_to_device(device)?,
            node_of_class: if in_order {
                None
            } else {
                Some(there(&node_of_class)?)
            },
        })
    }
}
