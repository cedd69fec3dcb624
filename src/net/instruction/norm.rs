//! Layer norm and group norm: the same five operations, over the channels of a position or over a group.

use super::operands::{Operands, Value};
use crate::net::ParamId;
use crate::ops::Shape;

/// What has one mean and one deviation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The channels of each position: layer norm.
    Channels,
    /// All positions, and the channels of each of this many groups: group norm.
    Groups(usize),
}

/// A norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Norm {
    /// What it reads and gives an image.
    pub shape: Shape,
    pub over: Over,
    pub gamma: ParamId,
    pub beta: ParamId,
}

impl Norm {
    /// Floats an image of the moments.
    pub fn moments(&self) -> usize {
        2 * match self.over {
            Over::Channels => self.shape.positions(),
            Over::Groups(groups) => groups,
        }
    }
}

/// What is done with a norm. `moments` holds each mean and reciprocal deviation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NormOp {
    /// y = γ x̂ + β, and the moments.
    Forward { y: Value, moments: Value, x: Value, eps: f32, at: Norm },
    /// t = γ x̂'.
    Tangent { t: Value, tx: Value, x: Value, moments: Value, at: Norm },
    /// dx += the adjoint of dy.
    Backward { dx: Value, dy: Value, x: Value, moments: Value, at: Norm },
    /// dxt += the derivative of the adjoint along tx and dyt.
    TangentBackward { dxt: Value, dyt: Value, dy: Value, tx: Value, x: Value, moments: Value, at: Norm },
    /// The gradients of γ and β.
    ParameterGradient { dy: Value, x: Value, moments: Value, at: Norm },
}

impl NormOp {
    /// Its operands, and how it uses each.
    pub fn operands(&self, all: &mut Operands) {
        let reads = |all: &mut Operands, values: &[Value], moments: Value, at: Norm| {
            values.iter().for_each(|&value| all.read(value, at.shape.len()));
            all.read(moments, at.moments());
        };
        match *self {
            NormOp::Forward { y, moments, x, eps: _, at } => {
                all.write(y, at.shape.len());
                all.write(moments, at.moments());
                all.read(x, at.shape.len());
                // What layer norm reads, and so the residual stream of a transformer, is f32; what it gives may be less.
                if at.over == Over::Channels {
                    all.alike([y]);
                }
                [at.gamma, at.beta].into_iter().for_each(|param| all.param(param, at.shape.c));
            }
            NormOp::Tangent { t, tx, x, moments, at } => {
                all.write(t, at.shape.len());
                reads(all, &[tx, x], moments, at);
                all.param(at.gamma, at.shape.c);
            }
            NormOp::Backward { dx, dy, x, moments, at } => {
                all.add(dx, at.shape.len());
                reads(all, &[dy, x], moments, at);
                all.param(at.gamma, at.shape.c);
            }
            NormOp::TangentBackward { dxt, dyt, dy, tx, x, moments, at } => {
                all.add(dxt, at.shape.len());
                reads(all, &[dyt, dy, tx, x], moments, at);
                all.param(at.gamma, at.shape.c);
            }
            NormOp::ParameterGradient { dy, x, moments, at } => {
                [at.gamma, at.beta].into_iter().for_each(|param| all.gradient(param, at.shape.c));
                reads(all, &[dy, x], moments, at);
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        let ([layer, group], at) = match self {
            NormOp::Forward { at, .. } => (["layer-norm", "group-norm"], at),
            NormOp::Tangent { at, .. } => (["layer-norm-tangent", "group-norm-tangent"], at),
            NormOp::Backward { at, .. } => (["layer-norm-backward", "group-norm-backward"], at),
            NormOp::TangentBackward { at, .. } => {
                (["layer-norm-tangent-backward", "group-norm-tangent-backward"], at)
            }
            NormOp::ParameterGradient { at, .. } => {
                (["layer-norm-parameter-gradient", "group-norm-parameter-gradient"], at)
            }
        };
        match at.over {
            Over::Channels => (layer, String::new()),
            Over::Groups(groups) => (group, format!("{groups} groups")),
        }
    }
}
