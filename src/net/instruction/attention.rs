//! Attention.

use super::operands::{Operands, Value};
use crate::net::ParamId;
use crate::ops::{Shape, Windows};

/// The sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heads {
    /// What it gives an image.
    pub shape: Shape,
    /// The number of heads.
    pub heads: usize,
    /// Windows of an image, each of them attended to alone.
    pub windows: usize,
}

impl Heads {
    /// Of `n` images, how many are attended to alone, and the shape of each.
    pub fn each(self, n: usize) -> (usize, Shape) {
        (n * self.windows, Shape::new(1, self.tokens(), self.shape.c))
    }

    fn tokens(self) -> usize {
        self.shape.positions() / self.windows
    }

    /// Floats an image of the input.
    fn packed(self) -> usize {
        3 * self.shape.len()
    }

    /// Floats an image of the weights P, a square for each head.
    pub fn weights(self) -> usize {
        self.windows * self.heads * self.tokens() * self.tokens()
    }
}

/// What is done to scores before the softmax. The other passes read it off P.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scores {
    /// Nothing.
    Plain,
    /// Keys where the mask, integers as the bits of floats, is 0 get no weight.
    Masked(Value),
    /// A table of relative positions is added, and what was apart before a shift is kept apart.
    Windows(ParamId, Windows),
}

/// What is done with an attention; `weights` holds P.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AttentionOp {
    /// y = PV, and P.
    Forward { y: Value, weights: Value, x: Value, scores: Scores, at: Heads },
    /// t = P'V + PV'.
    Tangent { t: Value, tx: Value, x: Value, weights: Value, at: Heads },
    /// dx += the adjoint of dy; in training, the gradient of a table of relative positions += its own.
    Backward { dx: Value, table: Option<(ParamId, Windows)>, dy: Value, x: Value, weights: Value, at: Heads },
    /// dxt += the derivative of the adjoint along tx and dyt.
    TangentBackward { dxt: Value, dyt: Value, dy: Value, tx: Value, x: Value, weights: Value, at: Heads },
}

impl AttentionOp {
    /// Its operands, and how it uses each.
    pub fn operands(&self, all: &mut Operands) {
        match *self {
            AttentionOp::Forward { y, weights, x, scores, at } => {
                all.write(y, at.shape.len());
                all.write(weights, at.weights());
                all.read(x, at.packed());
                all.alike([y, x]);
                match scores {
                    Scores::Plain => {}
                    Scores::Masked(mask) => all.read(mask, at.shape.positions()),
                    Scores::Windows(table, windows) => all.param(table, windows.offsets() * at.heads),
                }
            }
            AttentionOp::Tangent { t, tx, x, weights, at } => {
                all.write(t, at.shape.len());
                [tx, x].into_iter().for_each(|value| all.read(value, at.packed()));
                all.read(weights, at.weights());
            }
            AttentionOp::Backward { dx, table, dy, x, weights, at } => {
                table.iter().for_each(|(table, windows)| all.gradient(*table, windows.offsets() * at.heads));
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
        match at.windows {
            1 => (name, format!("{} heads", at.heads)),
            windows => (name, format!("{} heads, {windows} windows", at.heads)),
        }
    }
}
