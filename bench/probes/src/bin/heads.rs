//! `heads BATCH STEPS`: times the heads alone, forward and backward on one thread; prints `step_seconds X`, the median.

use std::io::Write;
use std::time::Instant;

use anyhow::Context;
use model::{Backbone, Graph, HgatFc, ModelConfig, Operations, Residual, loss};
use tch::{Device, Kind, Tensor};

/// COCO's classes by supercategory.
const GROUPS: [usize; 12] = [1, 8, 5, 10, 5, 10, 7, 10, 6, 6, 5, 7];
/// Steps that do not count.
const WARM_UP: usize = 2;

fn main() -> anyhow::Result<()> {
    let usage = "usage: heads BATCH STEPS";
    let arguments: Vec<i64> = std::env::args()
        .skip(1)
        .map(|argument| argument.parse())
        .collect::<Result<_, _>>()
        .context(usage)?;
    let &[batch, steps] = arguments.as_slice() else {
        anyhow::bail!(usage);
    };
    tch::set_num_threads(1);
    // As a worker does.
    nccl_rs::keep_memory();
    let mut next = 0;
    let groups = GROUPS.map(|size| {
        next += size;
        (next - size..next).collect()
    });
    let config = ModelConfig {
        backbone: Backbone::ResNet50,
        graph: Graph::Gat,
        residual: Residual::Sum,
        bn_momentum: 0.1,
        hidden: 1024,
        group_channels: 512,
        class_channels: 256,
        last_bias: None,
        groups: groups.to_vec(),
    };
    let options = (Kind::Float, Device::Cpu);
    let operations = Operations {
        product: nccl_rs::stacked_product,
        convolution: nccl_rs::convolution,
        norm: nccl_rs::norm,
    };
    let model = HgatFc::with_operations(&config, Device::Cpu, Kind::Float, 0, operations)?;
    let features = Tensor::f_randn([batch, 2048, 7, 7], options)?.f_set_requires_grad(true)?;
    let targets = Tensor::f_rand([batch, 80], options)?
        .f_lt(0.04)?
        .f_to_kind(Kind::Float)?;
    let mut seconds = Vec::new();
    for _ in 0..WARM_UP + usize::try_from(steps)? {
        let began = Instant::now();
        for parameter in model.parameters() {
            let mut gradient = parameter.tensor.f_grad()?;
            if gradient.defined() {
                let _ = gradient.f_zero_()?;
            }
        }
        let logits = model.heads(&features, true)?;
        loss::multilabel_soft_margin(&logits, &targets, u32::try_from(batch)?)?.f_backward()?;
        seconds.push(began.elapsed().as_secs_f64());
    }
    let mut counted = seconds.split_off(WARM_UP);
    counted.sort_by(f64::total_cmp);
    let median = counted
        .get(counted.len() / 2)
        .context("STEPS is at least 1")?;
    writeln!(std::io::stdout(), "step_seconds {median:.6}")?;
    Ok(())
}
