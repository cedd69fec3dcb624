//! Pooling: the largest value of each window, or means over windows, over the cells of a grid, or over all positions.

use crate::net::lower::At;
use crate::net::program::{Instruction, Operands, Value};
use crate::net::{Builder, NodeId, Op, Shape, Window};
use crate::{Error, Result};

use super::{Linear, Lower};

/// What is pooled: `from` to `to`, an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pooling {
    pub from: Shape,
    pub to: Shape,
}

/// What is done in pooling; `winners` holds, as the bits of an integer, the position of the largest value of each window.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PoolOp {
    /// The largest values, and where they are.
    Max { y: Value, winners: Value, x: Value, at: Pooling, window: Window },
    /// t = tx where the winners are.
    MaxTangent { t: Value, winners: Value, tx: Value, at: Pooling },
    /// dx += dy where the winners are.
    MaxBackward { dx: Value, winners: Value, dy: Value, at: Pooling, window: Window },
    /// The means of windows.
    Average { y: Value, x: Value, at: Pooling, window: Window },
    /// Its adjoint, added.
    AverageAdjoint { dx: Value, dy: Value, at: Pooling, window: Window },
    /// The means over the cells of a grid.
    Adaptive { y: Value, x: Value, at: Pooling },
    /// Its adjoint, added.
    AdaptiveAdjoint { dx: Value, dy: Value, at: Pooling },
}

impl PoolOp {
    /// What it meets.
    pub fn operands(&self, all: &mut Operands) {
        match *self {
            PoolOp::Max { y, winners, x, at, window: _ } => {
                [y, winners].into_iter().for_each(|value| all.write(value, at.to.len()));
                all.read(x, at.from.len());
            }
            PoolOp::MaxTangent { t, winners, tx, at } => {
                all.write(t, at.to.len());
                all.read(winners, at.to.len());
                all.read(tx, at.from.len());
            }
            PoolOp::MaxBackward { dx, winners, dy, at, window: _ } => {
                all.add(dx, at.from.len());
                [winners, dy].into_iter().for_each(|value| all.read(value, at.to.len()));
            }
            PoolOp::Average { y, x, at, window: _ } | PoolOp::Adaptive { y, x, at } => {
                all.write(y, at.to.len());
                all.read(x, at.from.len());
            }
            PoolOp::AverageAdjoint { dx, dy, at, window: _ } | PoolOp::AdaptiveAdjoint { dx, dy, at } => {
                all.add(dx, at.from.len());
                all.read(dy, at.to.len());
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        let windows = |window: &Window| format!("{}x{} stride {}", window.size, window.size, window.stride);
        match self {
            PoolOp::Max { window, .. } => ("max-pool", windows(window)),
            PoolOp::MaxTangent { .. } => ("max-pool-tangent", String::new()),
            PoolOp::MaxBackward { window, .. } => ("max-pool-backward", windows(window)),
            PoolOp::Average { window, .. } => ("average-pool", windows(window)),
            PoolOp::AverageAdjoint { window, .. } => ("average-pool-adjoint", windows(window)),
            PoolOp::Adaptive { at, .. } => ("adaptive-pool", format!("to {}x{}", at.to.h, at.to.w)),
            PoolOp::AdaptiveAdjoint { at, .. } => {
                ("adaptive-pool-adjoint", format!("from {}x{}", at.to.h, at.to.w))
            }
        }
    }
}

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
    let along =
        |size: usize| (size + 2 * window.padding).checked_sub(window.size).map(|d| d / window.stride + 1);
    match (along(h), along(w)) {
        (Some(h), Some(w)) => Ok(Shape::new(h, w, c)),
        _ => {
            let expected = format!("an image that a window of {} fits", window.size);
            Err(Error::shape(op, expected, format!("{h}x{w}")))
        }
    }
}
