//! The same values under another shape: an image as tokens or as features.

use crate::error::{Error, Result};
use crate::net::instruction::{Instruction, PointwiseOp, Value};
use crate::net::{Builder, NodeId, Op, Shape};

use super::passes::Linear;

/// A node of it.
pub(super) struct Reshape;

impl Linear for Reshape {
    fn map(&self, y: Value, x: Value, _: Shape, _: Shape) -> Instruction {
        PointwiseOp::Copy { y, x }.into()
    }

    fn adjoint(&self, dx: Value, dy: Value, _: Shape, _: Shape) -> Instruction {
        PointwiseOp::Add { y: dx, x: dy }.into()
    }
}

impl Builder<'_> {
    /// An image as one row of features; PyTorch's (c, h, w) order is restored in the weights that read it.
    pub fn flatten(&mut self, x: NodeId) -> NodeId {
        let shape = self.shape(x);
        self.push(Op::Reshape, &[x], Shape::new(1, 1, shape.len()))
    }

    /// An image as a row of tokens.
    pub fn tokens(&mut self, x: NodeId) -> NodeId {
        let shape = self.shape(x);
        self.push(Op::Reshape, &[x], Shape::new(1, shape.positions(), shape.c))
    }

    /// Tokens or an image as an image of these sides, row by row.
    ///
    /// # Errors
    /// Where it has another number of positions.
    pub fn image(&mut self, x: NodeId, h: usize, w: usize) -> Result<NodeId> {
        let shape = self.shape(x);
        match h.checked_mul(w) == Some(shape.positions()) {
            true => Ok(self.push(Op::Reshape, &[x], Shape::new(h, w, shape.c))),
            false => {
                Err(Error::shape("image", format!("{h}x{w} positions"), format!("{}", shape.positions())))
            }
        }
    }

    /// The image behind a flattened node, if `x` is one (a nonlinearity between does not change the order).
    pub(in crate::net) fn flattened(&self, x: NodeId) -> Option<Shape> {
        let node = self.node(x);
        match node.op {
            Op::Reshape if node.shape.positions() == 1 => {
                self.flattened(node.inputs[0]).or(Some(self.shape(node.inputs[0])))
            }
            Op::Activation(_) => self.flattened(node.inputs[0]),
            _ => None,
        }
    }
}
