//! Batch norm in train form (MATH.md, Eq. 10b): statistics over batch and positions, for which all chunks of the
//! batch wait. Freezing folds it into an epilogue, or makes it a [`super::scale`].

use crate::error::{Error, Result};
use crate::net::emit::At;
use crate::net::instruction::BatchNormOp;
use crate::net::network::Role;
use crate::net::{Builder, NodeId, Op, Order, ParamId};

use super::passes::Lower;

/// A node of it.
pub(super) struct BatchNorm {
    pub gamma: ParamId,
    pub beta: ParamId,
    pub mean: ParamId,
    pub var: ParamId,
    pub eps: f32,
}

impl Lower for BatchNorm {
    fn forward(&self, at: &mut At) -> Result<()> {
        if !at.trains() {
            return Err(unfrozen());
        }
        let BatchNorm { gamma, beta, mean, var, eps } = *self;
        let (y, x, node, c) = (at.y()?, at.x(0)?, at.id(), at.shape().c);
        at.push(BatchNormOp::Forward { y, x, node, gamma, beta, mean, var, eps, c });
        Ok(())
    }

    fn tangent(&self, _: &mut At) -> Result<()> {
        Err(unfrozen())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let BatchNorm { gamma, beta, eps, .. } = *self;
        let (dy, x, node, c) = (at.dy()?, at.x(0)?, at.id(), at.shape().c);
        let dx = at.dx(0);
        at.push(BatchNormOp::Backward { dx, dy, x, node, gamma, beta, eps, c });
        Ok(())
    }

    fn tangent_backward(&self, _: &mut At) -> Result<()> {
        Err(unfrozen())
    }
}

fn unfrozen() -> Error {
    Error::config("the network is in train form; freeze it first")
}

impl Builder<'_> {
    /// Batch norm under `name.{weight, bias, running_mean, running_var}`, eps 1e-5.
    pub fn batch_norm(&mut self, x: NodeId, name: &str) -> Result<NodeId> {
        self.batch_norm_with(x, name, 1e-5)
    }

    /// [`Builder::batch_norm`] of another eps.
    pub fn batch_norm_with(&mut self, x: NodeId, name: &str, eps: f32) -> Result<NodeId> {
        let names = ["weight", "bias", "running_mean", "running_var"].map(|part| format!("{name}.{part}"));
        let [gamma, beta, mean, var] = &names;
        self.batch_norm_of(x, [gamma, beta, mean, var], eps)
    }

    /// Batch norm by tensors of any names: scale, shift, running mean and running variance.
    ///
    /// # Errors
    /// Where one is missing, or has not one value per channel.
    pub fn batch_norm_of(&mut self, x: NodeId, names: [&str; 4], eps: f32) -> Result<NodeId> {
        let shape = self.shape(x);
        let mut read = |i: usize, role| self.param(names[i], &[shape.c], Order::Same, role);
        let (gamma, beta) = (read(0, Role::One)?, read(1, Role::Zero)?);
        let (mean, var) = (read(2, Role::Zero)?, read(3, Role::One)?);
        self.is_not_trained(mean);
        self.is_not_trained(var);
        Ok(self.push(Op::BatchNorm { gamma, beta, mean, var, eps }, &[x], shape))
    }
}
