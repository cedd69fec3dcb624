//! The shortcut of He et al. without parameters (option A): every `stride`-th position, zero channels added in equal
//! parts before and behind.

use crate::net::program::{Instruction, Operands, Value};
use crate::net::{Builder, NodeId, Op, Shape};
use crate::{Error, Result};

use super::Linear;

/// What is done with a shortcut.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ShortcutOp {
    /// y = the sampled positions of x, zeros around.
    Forward { y: Value, x: Value, from: Shape, to: Shape, stride: usize },
    /// Its adjoint, added.
    Adjoint { dx: Value, dy: Value, from: Shape, to: Shape, stride: usize },
}

impl ShortcutOp {
    /// What it meets.
    pub fn operands(&self, all: &mut Operands) {
        match *self {
            ShortcutOp::Forward { y, x, from, to, stride: _ } => {
                all.write(y, to.len());
                all.read(x, from.len());
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

/// A node of it.
pub(super) struct Shortcut {
    pub stride: usize,
}

impl Linear for Shortcut {
    fn map(&self, y: Value, x: Value, from: Shape, to: Shape) -> Instruction {
        ShortcutOp::Forward { y, x, from, to, stride: self.stride }.into()
    }

    fn adjoint(&self, dx: Value, dy: Value, from: Shape, to: Shape) -> Instruction {
        ShortcutOp::Adjoint { dx, dy, from, to, stride: self.stride }.into()
    }
}

impl Builder<'_> {
    /// The option-A shortcut to `channels` channels.
    pub fn shortcut(&mut self, x: NodeId, stride: usize, channels: usize) -> Result<NodeId> {
        let Shape { h, w, c } = self.shape(x);
        if channels < c || !(channels - c).is_multiple_of(2) {
            return Err(Error::shape(
                "shortcut",
                format!("{c} channels and an even number more"),
                format!("{channels}"),
            ));
        }
        let shape = Shape::new(h.div_ceil(stride), w.div_ceil(stride), channels);
        Ok(self.push(Op::Shortcut { stride }, &[x], shape))
    }
}
