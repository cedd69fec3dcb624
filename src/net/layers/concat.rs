//! The channels of several inputs side by side, at every position.

use crate::error::{Error, Result};
use crate::net::emit::At;
use crate::net::instruction::{PointwiseOp, RowSource, Rows, RowsOp, Value};
use crate::net::{Builder, NodeId, Op, Shape};
use crate::ops::Strided;

use super::passes::Lower;

/// A node of it.
pub(super) struct Concat;

impl Concat {
    /// The first channel of input `i`.
    fn first(at: &At, i: usize) -> usize {
        (0..i).map(|i| at.from(i).c).sum()
    }

    /// Copies the channels of input `i` from `x` to their place in `y`.
    fn join(at: &mut At, i: usize, y: Value, x: Value) {
        let (first, c, shape) = (Concat::first(at, i), at.from(i).c, at.shape());
        let (to, from) = (Strided { first, stride: shape.c }, Strided { first: 0, stride: c });
        at.push(RowsOp::Copy(Rows {
            y,
            to,
            source: RowSource::Value(x, from),
            count: shape.positions(),
            len: c,
        }));
    }
}

impl Lower for Concat {
    fn forward(&self, at: &mut At) -> Result<()> {
        let y = at.y()?;
        for i in 0..at.inputs() {
            let x = at.x(i)?;
            Concat::join(at, i, y, x);
        }
        Ok(())
    }

    fn tangent(&self, at: &mut At) -> Result<()> {
        let y = at.tangent()?;
        at.push(PointwiseOp::Zero { y });
        for i in 0..at.inputs() {
            if let Some(x) = at.tangent_of(i) {
                Concat::join(at, i, y, x);
            }
        }
        Ok(())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let dy = at.dy()?;
        for i in (0..at.inputs()).rev() {
            let (first, c, shape) = (Concat::first(at, i), at.from(i).c, at.shape());
            if let Some(y) = at.dx(i) {
                let (to, from) = (Strided { first: 0, stride: c }, Strided { first, stride: shape.c });
                let source = RowSource::Value(dy, from);
                at.push(RowsOp::Add(Rows { y, to, source, count: shape.positions(), len: c }));
            }
        }
        Ok(())
    }

    fn tangent_backward(&self, at: &mut At) -> Result<()> {
        self.backward(at)
    }
}

impl Builder<'_> {
    /// The channels of `parts`, one part after the other.
    ///
    /// # Errors
    /// Where there are no parts, or not all have the same positions.
    pub fn concat(&mut self, parts: &[NodeId]) -> Result<NodeId> {
        let shapes: Vec<Shape> = parts.iter().map(|&part| self.shape(part)).collect();
        match shapes.first() {
            Some(&Shape { h, w, .. }) if shapes.iter().all(|shape| (shape.h, shape.w) == (h, w)) => {
                let c = shapes.iter().map(|shape| shape.c).sum();
                Ok(self.push(Op::Concat, parts, Shape::new(h, w, c)))
            }
            _ => Err(Error::shape("concat", "parts of the same positions", format!("{shapes:?}"))),
        }
    }
}
