//! Batch norm in train form (MATH.md, Eq. 10b): statistics over batch and positions, which all chunks of a batch meet
//! at. Freezing folds it into an epilogue, or makes it a [`super::scale`].

use crate::net::build::Role;
use crate::net::lower::At;
use crate::net::program::{Operands, Value};
use crate::net::{Builder, NodeId, Op, Order, ParamId};
use crate::{Error, Result};

use super::Lower;

/// What is done with a batch norm; `node` is the one whose statistics are meant.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum BatchNormOp {
    /// The statistics of x, and y = γ x̂ + β.
    Forward {
        y: Value,
        x: Value,
        node: NodeId,
        gamma: ParamId,
        beta: ParamId,
        /// Running mean, which moves when the batch is done.
        mean: ParamId,
        /// Running variance.
        var: ParamId,
        eps: f32,
        c: usize,
    },
    /// The gradients of γ and β, and dx += the adjoint of dy, where the input has one.
    Backward {
        dx: Option<Value>,
        dy: Value,
        x: Value,
        node: NodeId,
        gamma: ParamId,
        beta: ParamId,
        eps: f32,
        c: usize,
    },
}

impl BatchNormOp {
    /// What it meets.
    pub fn operands(&self, all: &mut Operands) {
        match *self {
            BatchNormOp::Forward { y, x, node: _, gamma, beta, mean, var, eps: _, c } => {
                all.write(y, x.len / c * c);
                all.read(x, y.len);
                [gamma, beta, mean, var].into_iter().for_each(|param| all.param(param, c));
            }
            BatchNormOp::Backward { dx, dy, x, node: _, gamma, beta, eps: _, c } => {
                dx.iter().for_each(|dx| all.add(*dx, x.len));
                all.read(dy, x.len / c * c);
                all.read(x, dy.len);
                [gamma, beta].into_iter().for_each(|param| all.param(param, c));
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        let name = match self {
            BatchNormOp::Forward { .. } => "batch-norm",
            BatchNormOp::Backward { .. } => "batch-norm-backward",
        };
        (name, String::new())
    }
}

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
        let shape = self.shape(x);
        let mut read =
            |tensor: &str, role| self.param(&format!("{name}.{tensor}"), &[shape.c], Order::Same, role);
        let (gamma, beta) = (read("weight", Role::One)?, read("bias", Role::Zero)?);
        let (mean, var) = (read("running_mean", Role::Zero)?, read("running_var", Role::One)?);
        self.is_not_trained(mean);
        self.is_not_trained(var);
        Ok(self.push(Op::BatchNorm { gamma, beta, mean, var, eps }, &[x], shape))
    }
}
