//! Nonlinearities.

use crate::Result;
use crate::net::lower::At;
use crate::net::program::{Operands, Value};
use crate::net::{Activation, Builder, NodeId, Op};

use super::Lower;

/// What is done with a nonlinearity f; all values have one length. `argument` is f's argument, or for ReLU f's value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ActivationOp {
    /// y = f(x).
    Forward { y: Value, x: Value, kind: Activation },
    /// dx = f'(a) dy: backward of an adjoint, or forward of a tangent; in place where dx is dy.
    Backward { dx: Value, dy: Value, argument: Value, kind: Activation },
    /// dx += f'(a) dy.
    AddBackward { dx: Value, dy: Value, argument: Value, kind: Activation },
    /// dxt = f'(a) dyt + f''(a) a' dy, a' the argument's tangent.
    TangentBackward { dxt: Value, dyt: Value, dy: Value, tangent: Value, argument: Value, kind: Activation },
    /// dxt += f'(a) dyt + f''(a) a' dy.
    AddTangentBackward {
        dxt: Value,
        dyt: Value,
        dy: Value,
        tangent: Value,
        argument: Value,
        kind: Activation,
    },
}

impl ActivationOp {
    /// What it meets.
    pub fn operands(&self, all: &mut Operands) {
        match *self {
            ActivationOp::Forward { y, x, kind: _ } => {
                all.write(y, x.len);
                all.read(x, y.len);
            }
            ActivationOp::Backward { dx, dy, argument, kind: _ } => {
                all.write(dx, dy.len);
                [dy, argument].into_iter().for_each(|value| all.read(value, dx.len));
            }
            ActivationOp::AddBackward { dx, dy, argument, kind: _ } => {
                all.add(dx, dy.len);
                [dy, argument].into_iter().for_each(|value| all.read(value, dx.len));
            }
            ActivationOp::TangentBackward { dxt, dyt, dy, tangent, argument, kind: _ } => {
                all.write(dxt, dyt.len);
                [dyt, dy, tangent, argument].into_iter().for_each(|value| all.read(value, dxt.len));
            }
            ActivationOp::AddTangentBackward { dxt, dyt, dy, tangent, argument, kind: _ } => {
                all.add(dxt, dyt.len);
                [dyt, dy, tangent, argument].into_iter().for_each(|value| all.read(value, dxt.len));
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        let (name, kind) = match self {
            ActivationOp::Forward { kind, .. } => ("activation", kind),
            ActivationOp::Backward { kind, .. } | ActivationOp::AddBackward { kind, .. } => {
                ("activation-backward", kind)
            }
            ActivationOp::TangentBackward { kind, .. } | ActivationOp::AddTangentBackward { kind, .. } => {
                ("activation-tangent-backward", kind)
            }
        };
        (name, format!("{kind:?}").to_lowercase())
    }
}

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
