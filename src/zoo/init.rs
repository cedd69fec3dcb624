//! Tensors of new models: declared shapes, whose values are drawn when they are asked for.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::net::{Role, Source, is_shape};
use crate::ops::philox::{Stream, Use};

/// Declared shapes, filled on demand. The values of a tensor depend on the seed and its name's place among the declared ones.
pub(super) struct Init {
    seed: u64,
    pub shapes: BTreeMap<String, Vec<usize>>,
}

impl Init {
    pub fn new(seed: u64) -> Init {
        Init { seed, shapes: BTreeMap::new() }
    }

    pub fn names(&self) -> Vec<String> {
        self.shapes.keys().cloned().collect()
    }

    pub fn tensor_of(&mut self, name: &str, shape: &[usize]) {
        self.shapes.insert(name.into(), shape.to_vec());
    }

    /// A layer's weight, and its bias where it has one.
    pub fn layer(&mut self, name: &str, weight: &[usize], bias: bool) {
        self.tensor_of(&format!("{name}.weight"), weight);
        if bias {
            self.tensor_of(&format!("{name}.bias"), &weight[..1]);
        }
    }

    /// A layer without bias, and its batch norm.
    pub fn normed(&mut self, name: &str, norm: &str, weight: &[usize]) {
        self.layer(name, weight, false);
        self.batch_norm(norm, weight[0]);
    }

    pub fn batch_norm(&mut self, name: &str, width: usize) {
        for tensor in ["weight", "bias", "running_mean", "running_var"] {
            self.tensor_of(&format!("{name}.{tensor}"), &[width]);
        }
    }

    /// Layer, group or instance norm.
    pub fn norm(&mut self, name: &str, width: usize) {
        self.layer(name, &[width], true);
    }
}

impl Source for Init {
    fn tensor(&mut self, name: &str, shape: &[usize], role: Role) -> Result<Vec<f32>> {
        let place = self.shapes.keys().position(|known| known == name);
        let place = place.ok_or_else(|| Error::config(format!("tensor `{name}` was not declared")))?;
        let declared = &self.shapes[name];
        if !is_shape(declared, shape) {
            return Err(Error::shape("create", format!("`{name}` {declared:?}"), format!("{shape:?}")));
        }
        Ok(initial(self.seed, place, role, shape.iter().product()))
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(name).map(Vec::as_slice)
    }
}

/// The initial values of a tensor, the `place`-th of a model: weights and biases uniform within 1/√fan_in (PyTorch's default
/// for linear and convolution), norms at one and zero, embeddings normal with deviation 0.02.
pub(super) fn initial(seed: u64, place: usize, role: Role, len: usize) -> Vec<f32> {
    let mut stream = Stream::new(seed, Use::Weights, place as u32);
    match role {
        Role::Weight(fan_in) | Role::Bias(fan_in) => {
            let bound = 1.0 / (fan_in as f64).sqrt();
            (0..len).map(|_| ((2.0 * stream.uniform() - 1.0) * bound) as f32).collect()
        }
        Role::One => vec![1.0; len],
        Role::Zero => vec![0.0; len],
        Role::Embedding => (0..len).map(|_| 0.02 * stream.normal()).collect(),
    }
}
