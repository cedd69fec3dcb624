//! Nonlinearities.

use super::operands::{Operands, Value};
use crate::net::Activation;

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
    /// Its operands, and how it uses each.
    pub fn operands(&self, all: &mut Operands) {
        match *self {
            ActivationOp::Forward { y, x, kind: _ } => {
                all.write(y, x.len);
                all.read(x, y.len);
                all.alike([y, x]);
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
