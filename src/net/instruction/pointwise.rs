//! Sums, copies and scales of whole values, which the passes of many layers are made of.

use super::operands::{Operands, Value};
use crate::net::NodeId;

/// See the file's opening; all values have one length. `by` is a node, whose frozen scale and shift are meant.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PointwiseOp {
    /// y = 0.
    Zero { y: Value },
    /// y = x.
    Copy { y: Value, x: Value },
    /// y += x.
    Add { y: Value, x: Value },
    /// y = a + b.
    Sum { y: Value, a: Value, b: Value },
    /// y = scale ∘ x by channel; in place where y is x.
    Scale { y: Value, x: Value, by: NodeId },
    /// y = scale ∘ x + shift by channel.
    ScaleShift { y: Value, x: Value, by: NodeId },
    /// y += scale ∘ x by channel.
    AddScaled { y: Value, x: Value, by: NodeId },
}

impl PointwiseOp {
    /// Its operands, and how it uses each.
    pub fn operands(&self, all: &mut Operands) {
        match *self {
            PointwiseOp::Zero { y } => all.write(y, y.len),
            PointwiseOp::Copy { y, x } => {
                all.write(y, x.len);
                all.read(x, y.len);
                all.alike([y, x]);
            }
            PointwiseOp::Add { y, x } => {
                all.add(y, x.len);
                all.read(x, y.len);
                all.alike([y, x]);
            }
            PointwiseOp::Sum { y, a, b } => {
                all.write(y, a.len);
                [a, b].into_iter().for_each(|x| all.read(x, y.len));
                all.alike([y, a, b]);
            }
            PointwiseOp::Scale { y, x, by } => {
                all.write(y, x.len);
                all.read(x, y.len);
                all.scale(by, y.len);
            }
            PointwiseOp::ScaleShift { y, x, by } => {
                all.write(y, x.len);
                all.read(x, y.len);
                all.scale(by, y.len);
                all.alike([y, x]);
            }
            PointwiseOp::AddScaled { y, x, by } => {
                all.add(y, x.len);
                all.read(x, y.len);
                all.scale(by, y.len);
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        let name = match self {
            PointwiseOp::Zero { .. } => "zero",
            PointwiseOp::Copy { .. } | PointwiseOp::Add { .. } => "copy",
            PointwiseOp::Sum { .. } => "sum",
            PointwiseOp::Scale { .. } | PointwiseOp::AddScaled { .. } => "scale",
            PointwiseOp::ScaleShift { .. } => "scale-shift",
        };
        (name, String::new())
    }
}
