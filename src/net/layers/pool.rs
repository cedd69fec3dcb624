//! Pooling: the largest value of each window, or means over windows, over the cells of a grid, or over all positions.

use crate::error::{Error, Result};
use crate::net::emit::At;
use crate::net::instruction::{Instruction, PoolOp, Pooling, Value};
use crate::net::{Builder, NodeId, Op, Shape, Window};

use super::passes::{Linear, Lower};

/// A max pool's node.
pub(super) struct MaxPool(pub Window);

impl Lower for MaxPool {
    fn forward(&self, at: &mut At) -> Result<()> {
        let (y, x, pooling) = (at.y()?, at.x(0)?, Pooling { from: at.from(0), to: at.shape() });
        let winners = at.save("winners", y.len);
        at.push(PoolOp::Max { y, winners, x, at: pooling, window: self.0 });
        Ok(())
    }

    fn tangent(&self, at: &mut At) -> Result<()> {
        let (t, winners, tx) = (at.tangent()?, at.saved()?, at.tangent_of_input()?);
        let pooling = Pooling { from: at.from(0), to: at.shape() };
        at.push(PoolOp::MaxTangent { t, winners, tx, at: pooling });
        Ok(())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let (dy, winners) = (at.dy()?, at.saved()?);
        let pooling = Pooling { from: at.from(0), to: at.shape() };
        if let Some(dx) = at.dx(0) {
            at.push(PoolOp::MaxBackward { dx, winners, dy, at: pooling, window: self.0 });
        }
        Ok(())
    }

    fn tangent_backward(&self, at: &mut At) -> Result<()> {
        self.backward(at) // linear where the winners stay the same
    }
}

/// An average pool's node.
pub(super) struct AveragePool(pub Window);

impl Linear for AveragePool {
    fn map(&self, y: Value, x: Value, from: Shape, to: Shape) -> Instruction {
        PoolOp::Average { y, x, at: Pooling { from, to }, window: self.0 }.into()
    }

    fn adjoint(&self, dx: Value, dy: Value, from: Shape, to: Shape) -> Instruction {
        PoolOp::AverageAdjoint { dx, dy, at: Pooling { from, to }, window: self.0 }.into()
    }
}

/// The node of a mean over a grid, or over all positions, which is a grid of one cell.
pub(super) struct AdaptivePool;

impl Linear for AdaptivePool {
    fn map(&self, y: Value, x: Value, from: Shape, to: Shape) -> Instruction {
        PoolOp::Adaptive { y, x, at: Pooling { from, to } }.into()
    }

    fn adjoint(&self, dx: Value, dy: Value, from: Shape, to: Shape) -> Instruction {
        PoolOp::AdaptiveAdjoint { dx, dy, at: Pooling { from, to } }.into()
    }
}

impl Builder<'_> {
    /// Max pooling.
    pub fn max_pool(&mut self, x: NodeId, window: Window) -> Result<NodeId> {
        let shape = pooled("max_pool", self.shape(x), window)?;
        Ok(self.push(Op::MaxPool(window), &[x], shape))
    }

    /// Average pooling.
    pub fn average_pool(&mut self, x: NodeId, window: Window) -> Result<NodeId> {
        let shape = pooled("average_pool", self.shape(x), window)?;
        Ok(self.push(Op::AveragePool(window), &[x], shape))
    }

    /// Average pooling to an `h × w` grid.
    pub fn adaptive_pool(&mut self, x: NodeId, h: usize, w: usize) -> NodeId {
        let c = self.shape(x).c;
        self.push(Op::AdaptivePool, &[x], Shape::new(h, w, c))
    }

    /// The mean over all positions.
    pub fn global_pool(&mut self, x: NodeId) -> NodeId {
        let c = self.shape(x).c;
        self.push(Op::GlobalPool, &[x], Shape::new(1, 1, c))
    }
}

fn pooled(op: &'static str, Shape { h, w, c }: Shape, window: Window) -> Result<Shape> {
    match window.over(h, w) {
        Some((h, w)) => Ok(Shape::new(h, w, c)),
        None => {
            let (r, s) = window.size;
            let expected = format!("an image of which every window of {r}x{s} holds something");
            Err(Error::shape(op, expected, format!("{h}x{w}")))
        }
    }
}
