//! Layer norm over the channels of each position (MATH.md, Eq. 8).

use crate::Result;
use crate::net::build::Role;
use crate::net::lower::At;
use crate::net::program::{Operands, Value};
use crate::net::{Builder, NodeId, Op, Order, ParamId};

use super::Lower;

/// What is done with a layer norm. `moments` holds mean and reciprocal deviation of each of `positions`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LayerNormOp {
    /// y = γ x̂ + β, and the moments.
    Forward { y: Value, moments: Value, x: Value, gamma: ParamId, beta: ParamId, eps: f32, c: usize },
    /// t = γ x̂'.
    Tangent { t: Value, tx: Value, x: Value, moments: Value, gamma: ParamId, c: usize },
    /// dx += the adjoint of dy.
    Backward { dx: Value, dy: Value, x: Value, moments: Value, gamma: ParamId, c: usize },
    /// dxt += the derivative of the adjoint along tx and dyt.
    TangentBackward {
        dxt: Value,
        dyt: Value,
        dy: Value,
        tx: Value,
        x: Value,
        moments: Value,
        gamma: ParamId,
        c: usize,
    },
    /// The gradients of γ and β.
    ParameterGradient { gamma: ParamId, beta: ParamId, dy: Value, x: Value, moments: Value, c: usize },
}

impl LayerNormOp {
    /// What it meets.
    pub fn operands(&self, all: &mut Operands) {
        let whole = |len: usize, c: usize| len / c * c;
        match *self {
            LayerNormOp::Forward { y, moments, x, gamma, beta, eps: _, c } => {
                all.write(y, whole(x.len, c));
                all.write(moments, 2 * (x.len / c));
                all.read(x, y.len);
                [gamma, beta].into_iter().for_each(|param| all.param(param, c));
            }
            LayerNormOp::Tangent { t, tx, x, moments, gamma, c } => {
                all.write(t, whole(x.len, c));
                [tx, x].into_iter().for_each(|value| all.read(value, t.len));
                all.read(moments, 2 * (x.len / c));
                all.param(gamma, c);
            }
            LayerNormOp::Backward { dx, dy, x, moments, gamma, c } => {
                all.add(dx, whole(x.len, c));
                [dy, x].into_iter().for_each(|value| all.read(value, dx.len));
                all.read(moments, 2 * (x.len / c));
                all.param(gamma, c);
            }
            LayerNormOp::TangentBackward { dxt, dyt, dy, tx, x, moments, gamma, c } => {
                all.add(dxt, whole(x.len, c));
                [dyt, dy, tx, x].into_iter().for_each(|value| all.read(value, dxt.len));
                all.read(moments, 2 * (x.len / c));
                all.param(gamma, c);
            }
            LayerNormOp::ParameterGradient { gamma, beta, dy, x, moments, c } => {
                [gamma, beta].into_iter().for_each(|param| all.param(param, c));
                all.read(dy, whole(x.len, c));
                all.read(x, dy.len);
                all.read(moments, 2 * (x.len / c));
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        let name = match self {
            LayerNormOp::Forward { .. } => "layer-norm",
            LayerNormOp::Tangent { .. } => "layer-norm-tangent",
            LayerNormOp::Backward { .. } => "layer-norm-backward",
            LayerNormOp::TangentBackward { .. } => "layer-norm-tangent-backward",
            LayerNormOp::ParameterGradient { .. } => "layer-norm-parameter-gradient",
        };
        (name, String::new())
    }
}

/// A node of it.
pub(super) struct LayerNorm {
    pub gamma: ParamId,
    pub beta: ParamId,
    pub eps: f32,
}

impl Lower for LayerNorm {
    fn forward(&self, at: &mut At) -> Result<()> {
        let LayerNorm { gamma, beta, eps } = *self;
        let (y, x, shape) = (at.y()?, at.x(0)?, at.shape());
        let moments = at.save("moments", 2 * shape.positions());
        at.push(LayerNormOp::Forward { y, moments, x, gamma, beta, eps, c: shape.c });
        Ok(())
    }

    fn tangent(&self, at: &mut At) -> Result<()> {
        let (t, tx, x, moments) = (at.tangent()?, at.tangent_of_input()?, at.x(0)?, at.saved()?);
        let c = at.shape().c;
        at.push(LayerNormOp::Tangent { t, tx, x, moments, gamma: self.gamma, c });
        Ok(())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let LayerNorm { gamma, beta, .. } = *self;
        let (dy, x, moments, c) = (at.dy()?, at.x(0)?, at.saved()?, at.shape().c);
        if at.trains() {
            at.push(LayerNormOp::ParameterGradient { gamma, beta, dy, x, moments, c });
        }
        if let Some(dx) = at.dx(0) {
            at.push(LayerNormOp::Backward { dx, dy, x, moments, gamma, c });
        }
        Ok(())
    }

    fn tangent_backward(&self, at: &mut At) -> Result<()> {
        let (dyt, dy, x, moments, c) = (at.dy()?, at.primal_dy()?, at.x(0)?, at.saved()?, at.shape().c);
        let tx = at.tangent_of_input()?;
        if let Some(dxt) = at.dx(0) {
            at.push(LayerNormOp::TangentBackward { dxt, dyt, dy, tx, x, moments, gamma: self.gamma, c });
        }
        Ok(())
    }
}

impl Builder<'_> {
    /// Layer norm over channels under `name.{weight, bias}`.
    pub fn layer_norm(&mut self, x: NodeId, name: &str, eps: f32) -> Result<NodeId> {
        let shape = self.shape(x);
        let gamma = self.param(&format!("{name}.weight"), &[shape.c], Order::Same, Role::One)?;
        let beta = self.param(&format!("{name}.bias"), &[shape.c], Order::Same, Role::Zero)?;
        Ok(self.push(Op::LayerNorm { gamma, beta, eps }, &[x], shape))
    }
}
