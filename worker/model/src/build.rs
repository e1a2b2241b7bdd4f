//! Parameters as they are made: each with its place in memory, its names in files and its first values.

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::norm::{Norm, NormNames};
use crate::operations::Operations;

/// Which of the two parameter groups a parameter belongs to; each has its own learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The ResNet.
    Trunk,
    /// Everything after it.
    Head,
}

/// One trainable tensor. Layers of the same shape, such as the 80 `class_fcs`, lie in one tensor stacked along a first
/// dimension; in files each has its own name.
#[derive(Debug)]
pub struct Parameter {
    /// The values.
    pub tensor: Tensor,
    /// Its learning rate's group.
    pub role: Role,
    pub(crate) names: Vec<String>,
    /// The tensor has a first dimension of `names.len()`.
    pub(crate) stacked: bool,
}

impl Parameter {
    /// Its name in files; of stacked layers the first one's, with how many more there are.
    #[must_use]
    pub fn name(&self) -> String {
        match self.names.as_slice() {
            [only] => only.clone(),
            [first, others @ ..] => format!("{first} (and {} more like it)", others.len()),
            [] => String::new(),
        }
    }

    /// Views of `tensor`, which is shaped like this parameter, by name.
    pub(crate) fn pieces<'a>(
        &'a self,
        tensor: &'a Tensor,
    ) -> impl Iterator<Item = Result<(&'a str, Tensor)>> {
        self.names.iter().enumerate().map(move |(index, name)| {
            let piece = if self.stacked {
                tensor.f_select(0, index as i64)?
            } else {
                tensor.shallow_clone()
            };
            Ok((name.as_str(), piece))
        })
    }
}

/// A parameter in the kind that `x` is computed in. Its gradient comes back in its own kind.
pub(crate) fn in_kind_of(x: &Tensor, parameter: &Tensor) -> Result<Tensor> {
    if parameter.kind() == x.kind() {
        return Ok(parameter.shallow_clone());
    }
    Ok(parameter.f_to_kind(x.kind())?)
}

/// How values are drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Init {
    /// Uniform in ±bound.
    Uniform(f64),
    /// Normal around 0.
    Normal(f64),
    /// The same everywhere.
    Constant(f64),
}

impl Init {
    /// PyTorch's default for `Linear`: kaiming uniform with a = √5, that is ±1/√fan_in, for weight and bias.
    pub(crate) fn linear(fan_in: i64) -> Self {
        Self::Uniform((fan_in as f64).sqrt().recip())
    }

    /// `xavier_uniform_` (Glorot and Bengio 2010) with the reference's gain of 1.414, of `[rows, columns]`.
    pub(crate) fn xavier(rows: i64, columns: i64) -> Self {
        Self::Uniform(1.414 * (6.0 / (rows + columns) as f64).sqrt())
    }

    /// torchvision's for convolutions: kaiming normal by fan-out (He et al. 2015), gain √2.
    pub(crate) fn convolution(out: i64, side: i64) -> Self {
        Self::Normal((2.0 / (out * side * side) as f64).sqrt())
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014). libtorch's generator is one for the whole process, so that whoever else
/// draws from it would change the model; this one depends on the seed alone.
#[derive(Debug)]
struct Generator(u64);

impl Generator {
    /// Uniform in [0, 1), 24 bits.
    fn unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Two standard normal values (Box and Muller 1958).
    fn normal(&mut self) -> [f32; 2] {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let (sine, cosine) = (std::f32::consts::TAU * self.unit()).sin_cos();
        [radius * cosine, radius * sine]
    }

    fn fill(&mut self, values: &mut [f32], init: Init) {
        match init {
            Init::Uniform(bound) => {
                let bound = bound as f32;
                values.fill_with(|| bound * (2.0 * self.unit() - 1.0));
            }
            Init::Normal(deviation) => {
                let deviation = deviation as f32;
                for pair in values.chunks_mut(2) {
                    for (value, drawn) in pair.iter_mut().zip(self.normal()) {
                        *value = deviation * drawn;
                    }
                }
            }
            Init::Constant(value) => values.fill(value as f32),
        }
    }
}

/// Collects parameters and batch norms while layers are made.
#[derive(Debug)]
pub(crate) struct Builder {
    device: Device,
    kind: Kind,
    pub(crate) operations: Operations,
    generator: Generator,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) norms: Vec<NormNames>,
    pub(crate) statistics: i64,
}

impl Builder {
    /// A builder whose draws depend on `seed` alone.
    pub(crate) fn new(device: Device, kind: Kind, seed: u64, operations: Operations) -> Self {
        let (parameters, norms) = (Vec::new(), Vec::new());
        Self {
            device,
            kind,
            operations,
            generator: Generator(seed),
            parameters,
            norms,
            statistics: 0,
        }
    }

    /// A parameter of one layer.
    pub(crate) fn one(
        &mut self,
        name: &str,
        role: Role,
        shape: &[i64],
        init: Init,
    ) -> Result<Tensor> {
        self.parameter(vec![name.to_owned()], false, role, shape, init)
    }

    /// A parameter of several layers: `{prefix}.{name}` for each prefix, stacked to `[K, shape…]`.
    pub(crate) fn stack(
        &mut self,
        prefixes: &[String],
        name: &str,
        shape: &[i64],
        init: Init,
    ) -> Result<Tensor> {
        let names = prefixes
            .iter()
            .map(|prefix| format!("{prefix}.{name}"))
            .collect();
        let shape: Vec<i64> = std::iter::once(prefixes.len() as i64)
            .chain(shape.iter().copied())
            .collect();
        self.parameter(names, true, Role::Head, &shape, init)
    }

    /// A batch norm over `channels` of one layer, or of each of several stacked ones.
    pub(crate) fn norm(
        &mut self,
        prefixes: &[String],
        channels: i64,
        role: Role,
        momentum: f64,
    ) -> Result<Norm> {
        let stacked = role == Role::Head;
        let names = |what: &str| {
            prefixes
                .iter()
                .map(|prefix| format!("{prefix}.{what}"))
                .collect::<Vec<_>>()
        };
        let all = prefixes.len() as i64 * channels;
        let shape: &[i64] = if stacked {
            &[prefixes.len() as i64, channels]
        } else {
            &[channels]
        };
        let weight = self.parameter(names("weight"), stacked, role, shape, Init::Constant(1.0))?;
        let bias = self.parameter(names("bias"), stacked, role, shape, Init::Constant(0.0))?;
        let offset = self.statistics;
        self.norms.push(NormNames {
            prefixes: prefixes.to_vec(),
            channels,
            offset,
            momentum,
            role,
        });
        self.statistics += 2 * all;
        Ok(Norm {
            weight,
            bias,
            channels: all,
            offset,
            in_one_go: self.operations.norm,
        })
    }

    fn parameter(
        &mut self,
        names: Vec<String>,
        stacked: bool,
        role: Role,
        shape: &[i64],
        init: Init,
    ) -> Result<Tensor> {
        // Drawn in float32 on the CPU whatever the model's kind and device, so that the seed alone decides.
        let mut drawn = vec![0.0f32; shape.iter().product::<i64>() as usize];
        self.generator.fill(&mut drawn, init);
        let values = Tensor::f_from_slice(&drawn)?.f_view(shape)?;
        let tensor = values
            .f_to_kind(self.kind)?
            .f_to_device(self.device)?
            .f_set_requires_grad(true)?;
        self.parameters.push(Parameter {
            tensor: tensor.shallow_clone(),
            role,
            names,
            stacked,
        });
        Ok(tensor)
    }
}
