//! Optimizers: SGD with momentum, or Adam. A step on one tensor is [`super::cpu::optimizer`]'s or
//! [`super::cuda::optimizer`]'s; every operation is rounded by itself, with the same bits on both.

use crate::error::Result;

/// The optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optimizer {
    /// Stochastic gradient descent with momentum: u ← μu + g, w ← w − ηu.
    Sgd,
    /// Adam (Kingma & Ba 2015), β 0.9 and 0.999, ε 1e-8.
    Adam,
}

crate::names::names!(Optimizer {
    Sgd = "sgd": "stochastic gradient descent with momentum",
    Adam = "adam": "Adam (Kingma and Ba 2015)",
});

/// What an optimizer remembers of a tensor from step to step; zeros before the first.
#[derive(Clone, Debug, PartialEq)]
pub enum Memory<T> {
    /// SGD's u.
    Sgd(T),
    /// Adam's means of g and of g², as they run.
    Adam(T, T),
}

/// The parameters that weight decay is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decayed {
    /// All, as PyTorch does by default.
    #[default]
    All,
    /// Weights of linear layers and filters of convolutions; no biases, norms, embeddings, class tokens or positions.
    Weights,
}

crate::names::names!(Decayed {
    All = "all": "all parameters",
    Weights = "weights": "weights of linear layers and filters of convolutions alone",
});

/// What one step does to every parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// η, as it is now.
    pub rate: f32,
    /// μ of SGD.
    pub momentum: f32,
    /// Weight decay: g is the gradient + decay · w.
    pub decay: f32,
    /// Which step it is, from 1.
    pub step: i32,
}

/// Adam's β of its two means.
pub(super) const BETAS: [f32; 2] = [0.9, 0.999];
/// Adam's ε.
pub(super) const EPSILON: f32 = 1e-8;

impl Optimizer {
    /// How many values it remembers of a parameter.
    pub fn remembers(self) -> usize {
        match self {
            Optimizer::Sgd => 1,
            Optimizer::Adam => 2,
        }
    }
}

impl<T> Memory<T> {
    /// The memory of an optimizer, from what makes zeros.
    ///
    /// # Errors
    /// Those of `zeros`.
    pub fn new(optimizer: Optimizer, mut zeros: impl FnMut() -> Result<T>) -> Result<Memory<T>> {
        Ok(match optimizer {
            Optimizer::Sgd => Memory::Sgd(zeros()?),
            Optimizer::Adam => Memory::Adam(zeros()?, zeros()?),
        })
    }

    /// Its one or two tensors.
    pub fn parts(&self) -> impl Iterator<Item = &T> {
        let (one, other) = match self {
            Memory::Sgd(u) => (u, None),
            Memory::Adam(first, second) => (first, Some(second)),
        };
        std::iter::once(one).chain(other)
    }

    /// The same, to be changed.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let (one, other) = match self {
            Memory::Sgd(u) => (u, None),
            Memory::Adam(first, second) => (first, Some(second)),
        };
        std::iter::once(one).chain(other)
    }
}

impl Update {
    /// 1 − βᵗ, which Adam divides its means by.
    pub fn corrections(&self) -> [f32; 2] {
        BETAS.map(|beta| 1.0 - beta.powi(self.step))
    }
}
