//! Layer norm over the channels of each position (MATH.md, Eq. 8).

use crate::Result;
use crate::net::emit::At;
use crate::net::instruction::LayerNormOp;
use crate::net::network::Role;
use crate::net::{Builder, NodeId, Op, Order, ParamId};

use super::passes::Lower;

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
