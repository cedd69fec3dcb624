//! Group norm.

use super::operands::{Operands, Value};
use crate::net::ParamId;
use crate::ops::Shape;

/// The sizes of a group norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Groups {
    /// What it reads and gives an image.
    pub shape: Shape,
    /// The number of groups.
    pub groups: usize,
}

/// What is done with a group norm. `moments` holds mean and reciprocal deviation of each group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum GroupNormOp {
    /// y = γ x̂ + β, and the moments.
    Forward { y: Value, moments: Value, x: Value, gamma: ParamId, beta: ParamId, eps: f32, at: Groups },
    /// t = γ x̂'.
    Tangent { t: Value, tx: Value, x: Value, moments: Value, gamma: ParamId, at: Groups },
    /// dx += the adjoint of dy.
    Backward { dx: Value, dy: Value, x: Value, moments: Value, gamma: ParamId, at: Groups },
    /// dxt += the derivative of the adjoint along tx and dyt.
    TangentBackward {
        dxt: Value,
        dyt: Value,
        dy: Value,
        tx: Value,
        x: Value,
        moments: Value,
        gamma: ParamId,
        at: Groups,
    },
    /// The gradients of γ and β.
    ParameterGradient { gamma: ParamId, beta: ParamId, dy: Value, x: Value, moments: Value, at: Groups },
}

impl GroupNormOp {
    /// What it meets.
    pub fn operands(&self, all: &mut Operands) {
        let reads = |all: &mut Operands, values: &[Value], moments: Value, at: Groups| {
            values.iter().for_each(|&value| all.read(value, at.shape.len()));
            all.read(moments, 2 * at.groups);
        };
        match *self {
            GroupNormOp::Forward { y, moments, x, gamma, beta, eps: _, at } => {
                all.write(y, at.shape.len());
                all.write(moments, 2 * at.groups);
                all.read(x, at.shape.len());
                [gamma, beta].into_iter().for_each(|param| all.param(param, at.shape.c));
            }
            GroupNormOp::Tangent { t, tx, x, moments, gamma, at } => {
                all.write(t, at.shape.len());
                reads(all, &[tx, x], moments, at);
                all.param(gamma, at.shape.c);
            }
            GroupNormOp::Backward { dx, dy, x, moments, gamma, at } => {
                all.add(dx, at.shape.len());
                reads(all, &[dy, x], moments, at);
                all.param(gamma, at.shape.c);
            }
            GroupNormOp::TangentBackward { dxt, dyt, dy, tx, x, moments, gamma, at } => {
                all.add(dxt, at.shape.len());
                reads(all, &[dyt, dy, tx, x], moments, at);
                all.param(gamma, at.shape.c);
            }
            GroupNormOp::ParameterGradient { gamma, beta, dy, x, moments, at } => {
                [gamma, beta].into_iter().for_each(|param| all.param(param, at.shape.c));
                reads(all, &[dy, x], moments, at);
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        let (name, at) = match self {
            GroupNormOp::Forward { at, .. } => ("group-norm", at),
            GroupNormOp::Tangent { at, .. } => ("group-norm-tangent", at),
            GroupNormOp::Backward { at, .. } => ("group-norm-backward", at),
            GroupNormOp::TangentBackward { at, .. } => ("group-norm-tangent-backward", at),
            GroupNormOp::ParameterGradient { at, .. } => ("group-norm-parameter-gradient", at),
        };
        (name, format!("{} groups", at.groups))
    }
}
