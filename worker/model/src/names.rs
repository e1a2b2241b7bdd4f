//! From the stacked tensors in memory to the reference's names in files, and back.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::{HgatFc, ModelError, Result};

impl HgatFc {
    /// The state by the reference's names: parameters and running statistics as contiguous CPU tensors that share no
    /// memory with the model, `num_batches_tracked` as int64 scalars. Loads strictly into the reference.
    ///
    /// # Errors
    /// [`ModelError::Torch`].
    pub fn export(&self) -> Result<Vec<(String, Tensor)>> {
        let parameters: Vec<Tensor> = self
            .parameters
            .iter()
            .map(|p| p.tensor.shallow_clone())
            .collect();
        let mut named = split(self.parameters.iter(), &parameters)?;
        for norm in &self.norms {
            for (name, offset) in norm.statistics() {
                named.push((
                    name,
                    own(&self.statistics.running.f_narrow(0, offset, norm.channels)?)?,
                ));
            }
            for prefix in &norm.prefixes {
                let count = Tensor::f_from_slice(&[self.batches_tracked])?.f_squeeze()?;
                named.push((format!("{prefix}.num_batches_tracked"), count));
            }
        }
        Ok(named)
    }

    /// Every name that [`HgatFc::export`] gives, with its shape.
    ///
    /// # Errors
    /// [`ModelError::Torch`].
    pub fn shapes(&self) -> Result<BTreeMap<String, Vec<i64>>> {
        let mut shapes = BTreeMap::new();
        for parameter in &self.parameters {
            for piece in parameter.pieces(&parameter.tensor) {
                let (name, piece) = piece?;
                shapes.insert(name.to_owned(), piece.size());
            }
        }
        for norm in &self.norms {
            shapes.extend(
                norm.statistics()
                    .map(|(name, _)| (name, vec![norm.channels])),
            );
            let counts = norm
                .prefixes
                .iter()
                .map(|prefix| (format!("{prefix}.num_batches_tracked"), Vec::new()));
            shapes.extend(counts);
        }
        Ok(shapes)
    }

    /// Takes over the tensors that are there by name; other values stay. Names that the model does not have are the
    /// caller's to look at (see [`HgatFc::shapes`]).
    ///
    /// # Errors
    /// [`ModelError::Tensor`] for a wrong shape; [`ModelError::Torch`].
    pub fn import(&mut self, named: &BTreeMap<String, Tensor>) -> Result<()> {
        tch::no_grad(|| {
            for parameter in &self.parameters {
                for piece in parameter.pieces(&parameter.tensor) {
                    let (name, piece) = piece?;
                    copy(named, name, &piece)?;
                }
            }
            for norm in &self.norms {
                for (name, offset) in norm.statistics() {
                    copy(
                        named,
                        &name,
                        &self.statistics.running.f_narrow(0, offset, norm.channels)?,
                    )?;
                }
            }
            Ok::<_, ModelError>(())
        })?;
        // All norms count the same steps; a file without the counts (PyTorch before 0.4.1) begins at 0.
        if let Some(count) = self
            .norms
            .iter()
            .flat_map(|norm| &norm.prefixes)
            .find_map(|prefix| named.get(&format!("{prefix}.num_batches_tracked")))
        {
            self.batches_tracked = count.f_int64_value(&[])?;
        }
        Ok(())
    }

    /// Tensors shaped like the trainable parameters (an optimizer's state), one each and in their order, by the
    /// parameters' names: contiguous CPU tensors that share no memory with them.
    ///
    /// # Errors
    /// [`ModelError::Torch`].
    pub fn split_like_parameters(&self, tensors: &[Tensor]) -> Result<Vec<(String, Tensor)>> {
        split(self.trainable(), tensors)
    }

    /// The way back: fills `tensors` from what [`HgatFc::split_like_parameters`] gave.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] for a missing name or a wrong shape; [`ModelError::Torch`].
    pub fn fill_like_parameters(
        &self,
        named: &BTreeMap<String, Tensor>,
        tensors: &[Tensor],
    ) -> Result<()> {
        tch::no_grad(|| {
            for (parameter, tensor) in self.trainable().zip(tensors) {
                for piece in parameter.pieces(tensor) {
                    let (name, piece) = piece?;
                    if !copy(named, name, &piece)? {
                        return Err(ModelError::Tensor {
                            name: name.to_owned(),
                            reason: "is missing".to_owned(),
                        });
                    }
                }
            }
            Ok(())
        })
    }
}

fn split<'a>(
    parameters: impl Iterator<Item = &'a crate::Parameter>,
    tensors: &[Tensor],
) -> Result<Vec<(String, Tensor)>> {
    let mut named = Vec::new();
    for (parameter, tensor) in parameters.zip(tensors) {
        for piece in parameter.pieces(tensor) {
            let (name, piece) = piece?;
            named.push((name.to_owned(), own(&piece)?));
        }
    }
    Ok(named)
}

/// A contiguous CPU copy.
fn own(tensor: &Tensor) -> Result<Tensor> {
    let there = Tensor::f_empty(tensor.size(), (tensor.kind(), Device::Cpu))?;
    let mut there = there;
    tch::no_grad(|| there.f_copy_(tensor))?;
    Ok(there)
}

/// Copies `named[name]` into `into`; whether it is there.
fn copy(named: &BTreeMap<String, Tensor>, name: &str, into: &Tensor) -> Result<bool> {
    let Some(from) = named.get(name) else {
        return Ok(false);
    };
    if from.size() != into.size()
        || !matches!(
            from.kind(),
            Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16
        )
    {
        let reason = format!(
            "is {:?} of shape {:?}, the model's has {:?}",
            from.kind(),
            from.size(),
            into.size()
        );
        return Err(ModelError::Tensor {
            name: name.to_owned(),
            reason,
        });
    }
    into.shallow_clone().f_copy_(from)?;
    Ok(true)
}
