//! Nonlinearities.

use crate::error::Result;
use crate::net::emit::At;
use crate::net::instruction::ActivationOp;
use crate::net::{Activation, Builder, NodeId, Op};

use super::passes::Lower;

impl Lower for Activation {
    fn forward(&self, at: &mut At) -> Result<()> {
        let (y, x) = (at.y()?, at.x(0)?);
        at.push(ActivationOp::Forward { y, x, kind: *self });
        Ok(())
    }

    fn tangent(&self, at: &mut At) -> Result<()> {
        let (dx, dy, argument) = (at.tangent()?, at.tangent_of_input()?, at.x(0)?);
        at.push(ActivationOp::Backward { dx, dy, argument, kind: *self });
        Ok(())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let (dy, argument) = (at.dy()?, at.x(0)?);
        if let Some(dx) = at.dx(0) {
            at.push(ActivationOp::AddBackward { dx, dy, argument, kind: *self });
        }
        Ok(())
    }

    fn tangent_backward(&self, at: &mut At) -> Result<()> {
        let (dyt, dy, argument) = (at.dy()?, at.primal_dy()?, at.x(0)?);
        let tangent = at.tangent_of_input()?;
        if let Some(dxt) = at.dx(0) {
            at.push(ActivationOp::AddTangentBackward { dxt, dyt, dy, tangent, argument, kind: *self });
        }
        Ok(())
    }
}

impl Builder<'_> {
    /// A nonlinearity.
    pub fn activation(&mut self, x: NodeId, activation: Activation) -> NodeId {
        let shape = self.shape(x);
        self.push(Op::Activation(activation), &[x], shape)
    }

    /// ReLU.
    pub fn relu(&mut self, x: NodeId) -> NodeId {
        self.activation(x, Activation::Relu)
    }
}
