//! The shortcut without parameters.

use super::operands::{Operands, Value};
use crate::ops::Shape;

/// What is done with a shortcut.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ShortcutOp {
    /// y = the sampled positions of x, zeros around.
    Forward { y: Value, x: Value, from: Shape, to: Shape, stride: usize },
    /// Its adjoint, added.
    Adjoint { dx: Value, dy: Value, from: Shape, to: Shape, stride: usize },
}

impl ShortcutOp {
    /// Its operands, and how it uses each.
    pub fn operands(&self, all: &mut Operands) {
        match *self {
            ShortcutOp::Forward { y, x, from, to, stride: _ } => {
                all.write(y, to.len());
                all.read(x, from.len());
                all.alike([y, x]);
            }
            ShortcutOp::Adjoint { dx, dy, from, to, stride: _ } => {
                all.add(dx, from.len());
                all.read(dy, to.len());
            }
        }
    }

    /// What it is called, and its settings.
    pub fn describe(&self) -> (&'static str, String) {
        match self {
            ShortcutOp::Forward { stride, .. } => ("shortcut", format!("stride {stride}")),
            ShortcutOp::Adjoint { stride, .. } => ("shortcut-adjoint", format!("stride {stride}")),
        }
    }
}
