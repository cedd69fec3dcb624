//! Batch norm with the statistics of the batch, for which all chunks of the batch wait.

use super::operands::{Operands, Value};
use crate::net::{NodeId, ParamId};

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
    /// y once more, with the statistics that are known.
    Again { y: Value, x: Value, node: NodeId, gamma: ParamId, beta: ParamId, eps: f32, c: usize },
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
    /// Its operands, and how it uses each.
    pub fn operands(&self, all: &mut Operands) {
        match *self {
            BatchNormOp::Forward { y, x, node: _, gamma, beta, mean, var, eps: _, c } => {
                all.write(y, x.len / c * c);
                all.read(x, y.len);
                [gamma, beta, mean, var].into_iter().for_each(|param| all.param(param, c));
            }
            BatchNormOp::Again { y, x, node: _, gamma, beta, eps: _, c } => {
                all.write(y, x.len / c * c);
                all.read(x, y.len);
                [gamma, beta].into_iter().for_each(|param| all.param(param, c));
            }
            BatchNormOp::Backward { dx, dy, x, node: _, gamma, beta, eps: _, c } => {
                dx.iter().for_each(|dx| all.add(*dx, x.len));
                all.read(dy, x.len / c * c);
                all.read(x, dy.len);
                [gamma, beta].into_iter().for_each(|param| all.gradient(param, c));
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        let name = match self {
            BatchNormOp::Forward { .. } => "batch-norm",
            BatchNormOp::Again { .. } => "batch-norm-again",
            BatchNormOp::Backward { .. } => "batch-norm-backward",
        };
        (name, String::new())
    }
}
