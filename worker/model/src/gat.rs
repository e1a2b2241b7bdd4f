//! Graph attention (Veličković et al. 2017, "Graph Attention Networks", equations 1 to 4) as the published notes use
//! it: `elu( softmax_j(leaky_relu(aᵀ[Wh_i ‖ Wh_j], 0.2)) Wh + beta · Wh )`, `beta` learnable from 1.
//!
//! `aᵀ[Wh_i ‖ Wh_j] = a₁ᵀWh_i + a₂ᵀWh_j`, so no `[B, N, N, 2C]` tensor is made. Several graphs are computed at once,
//! padded to the largest one with a mask.
//!
//! Shapes: `[S, B, N, C]` to the same, S graphs with weights of their own, B samples, N nodes.

use tch::Tensor;

use crate::Result;
use crate::build::{Builder, Init, in_kind_of};

/// Slope of the leaky ReLU below 0.
const SLOPE: f64 = 0.2;

/// S attention layers.
#[derive(Debug)]
pub(crate) struct Attention {
    /// `[S, C, C]`
    w: Tensor,
    /// `[S, 2C, 1]`
    a: Tensor,
    /// `[S, 1]`
    beta: Tensor,
    channels: i64,
}

impl Attention {
    pub(crate) fn new(builder: &mut Builder, prefixes: &[String], channels: i64) -> Result<Self> {
        Ok(Self {
            w: builder.stack(
                prefixes,
                "W",
                &[channels, channels],
                Init::xavier(channels, channels),
            )?,
            a: builder.stack(
                prefixes,
                "a",
                &[2 * channels, 1],
                Init::xavier(2 * channels, 1),
            )?,
            beta: builder.stack(prefixes, "beta", &[1], Init::Constant(1.0))?,
            channels,
        })
    }

    /// `absent` is `[S, 1, 1, N]`, true where a graph has no such node. The weights of equation 3 `[S, B, N, N]`, those
    /// that a node (row) gives to each node (column), are left in `seen` if someone wants to see them.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        absent: Option<&Tensor>,
        seen: Option<&mut Option<Tensor>>,
    ) -> Result<Tensor> {
        let (graphs, batch, nodes, channels) = x.size4()?;
        let h = x
            .f_reshape([graphs, batch * nodes, channels])?
            .f_bmm(&in_kind_of(x, &self.w)?)? // Wh
            .f_to_kind(self.w.kind())?; // attention is small and its softmax steep: in the parameters' kind
        let score = |from: i64| -> Result<Tensor> {
            let half = self.a.f_narrow(1, from, self.channels)?; // [S, C, 1]
            Ok(h.f_bmm(&half)?.f_view([graphs, batch, nodes])?)
        };
        let (own, other) = (
            score(0)?.f_unsqueeze(3)?,
            score(self.channels)?.f_unsqueeze(2)?,
        );
        let mut e = leaky_relu(&own.f_add(&other)?)?; // [S, B, N, N]
        if let Some(absent) = absent {
            e = e.f_masked_fill(absent, f64::NEG_INFINITY)?;
        }
        let attention = e.f_softmax(3, None)?;
        if let Some(seen) = seen {
            *seen = Some(attention.shallow_clone());
        }
        let attention = attention.f_view([graphs * batch, nodes, nodes])?;
        let mixed = attention.f_bmm(&h.f_view([graphs * batch, nodes, channels])?)?;
        let beta = self.beta.f_view([graphs, 1, 1])?;
        let kept = h.f_mul(&beta)?.f_view([graphs, batch, nodes, channels])?;
        Ok(mixed
            .f_view([graphs, batch, nodes, channels])?
            .f_add(&kept)?
            .f_elu()?
            .f_to_kind(x.kind())?)
    }
}

/// tch's own leaky ReLU has the slope 0.01 built in; below 0 this one is `SLOPE * x`.
fn leaky_relu(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_relu()?
        .f_mul_scalar(1.0 - SLOPE)?
        .f_add(&x.f_mul_scalar(SLOPE)?)?)
}

#[cfg(test)]
mod tests {
    use tch::{Device, IndexOp, Kind};

    use super::*;
    use crate::Operations;

    #[test]
    fn the_weights_are_those_of_the_papers_equation_and_absent_nodes_get_none() {
        // Given two graphs, the second of two nodes
        let mut builder = Builder::new(Device::Cpu, Kind::Double, 3, Operations::default());
        let prefixes = ["one".to_owned(), "two".to_owned()];
        let layer = Attention::new(&mut builder, &prefixes, 4).unwrap();
        let x = Tensor::randn([2, 1, 3, 4], (Kind::Double, Device::Cpu));
        let absent = Tensor::from_slice(&[false, false, false, false, false, true]);

        // When
        let mut seen = None;
        let absent = absent.view([2, 1, 1, 3]);
        let _ = layer.forward(&x, Some(&absent), Some(&mut seen)).unwrap();

        // Then every row is softmax_j(leaky_relu(aᵀ[Wh_i ‖ Wh_j], 0.2)), node by node
        let seen = seen.unwrap();
        assert_eq!(seen.size(), [2, 1, 3, 3]);
        for (graph, nodes) in [(0, 3), (1, 2)] {
            let h = x.i((graph, 0)).mm(&layer.w.i(graph));
            for i in 0..3 {
                let score = |j: i64| {
                    let pair = Tensor::cat(&[h.i(i), h.i(j)], 0);
                    let e = pair.dot(&layer.a.i((graph, .., 0))).double_value(&[]);
                    if e < 0.0 { SLOPE * e } else { e }.exp()
                };
                let sum: f64 = (0..nodes).map(score).sum();
                for j in 0..3 {
                    let found = seen.double_value(&[graph, 0, i, j]);
                    let expected = if j < nodes { score(j) / sum } else { 0.0 };
                    assert!(
                        (found - expected).abs() < 1e-12,
                        "graph {graph}, {i} to {j}"
                    );
                }
            }
        }
    }
}
