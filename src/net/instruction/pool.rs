//! Pooling.

use super::operands::{Operands, Value};
use crate::ops::{Shape, Window};

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
    /// Its operands, and how it uses each.
    pub fn operands(&self, all: &mut Operands) {
        match *self {
            PoolOp::Max { y, winners, x, at, window: _ } => {
                [y, winners].into_iter().for_each(|value| all.write(value, at.to.len()));
                all.read(x, at.from.len());
                all.alike([y, x]);
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
                all.alike([y, x]);
            }
            PoolOp::AverageAdjoint { dx, dy, at, window: _ } | PoolOp::AdaptiveAdjoint { dx, dy, at } => {
                all.add(dx, at.from.len());
                all.read(dy, at.to.len());
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        let windows =
            |window: &Window| format!("{}x{} stride {}", window.size.0, window.size.1, window.stride);
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
