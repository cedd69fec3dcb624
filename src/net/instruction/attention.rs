//! Attention.

use super::operands::{Operands, Value};
use crate::ops::Shape;

/// The sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heads {
    /// What it gives an image.
    pub shape: Shape,
    /// The number of heads.
    pub heads: usize,
}

impl Heads {
    /// Floats an image of the input.
    fn packed(self) -> usize {
        3 * self.shape.len()
    }

    /// Floats an image of the weights P, a square for each head.
    pub fn weights(self) -> usize {
        self.heads * self.shape.positions() * self.shape.positions()
    }
}

/// What is done with an attention; `weights` holds P.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AttentionOp {
    /// y = PV, and P; with a mask, which holds integers as the bits of floats, keys where it is 0 get no weight. The other
    /// passes read that off P.
    Forward { y: Value, weights: Value, x: Value, mask: Option<Value>, at: Heads },
    /// t = P'V + PV'.
    Tangent { t: Value, tx: Value, x: Value, weights: Value, at: Heads },
    /// dx += the adjoint of dy.
    Backward { dx: Value, dy: Value, x: Value, weights: Value, at: Heads },
    /// dxt += the derivative of the adjoint along tx and dyt.
    TangentBackward { dxt: Value, dyt: Value, dy: Value, tx: Value, x: Value, weights: Value, at: Heads },
}

impl AttentionOp {
    /// What it meets.
    pub fn operands(&self, all: &mut Operands) {
        match *self {
            AttentionOp::Forward { y, weights, x, mask, at } => {
                all.write(y, at.shape.len());
                all.write(weights, at.weights());
                all.read(x, at.packed());
                mask.iter().for_each(|&mask| all.read(mask, at.shape.positions()));
            }
            AttentionOp::Tangent { t, tx, x, weights, at } => {
                all.write(t, at.shape.len());
                [tx, x].into_iter().for_each(|value| all.read(value, at.packed()));
                all.read(weights, at.weights());
            }
            AttentionOp::Backward { dx, dy, x, weights, at } => {
                all.add(dx, at.packed());
                all.read(dy, at.shape.len());
                all.read(x, at.packed());
                all.read(weights, at.weights());
            }
            AttentionOp::TangentBackward { dxt, dyt, dy, tx, x, weights, at } => {
                all.add(dxt, at.packed());
                [dyt, dy].into_iter().for_each(|value| all.read(value, at.shape.len()));
                [tx, x].into_iter().for_each(|value| all.read(value, at.packed()));
                all.read(weights, at.weights());
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        let (name, at) = match self {
            AttentionOp::Forward { at, .. } => ("attention", at),
            AttentionOp::Tangent { at, .. } => ("attention-tangent", at),
            AttentionOp::Backward { at, .. } => ("attention-backward", at),
            AttentionOp::TangentBackward { at, .. } => ("attention-tangent-backward", at),
        };
        (name, format!("{} heads", at.heads))
    }
}
