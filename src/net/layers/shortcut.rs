//! The shortcut of He et al. without parameters (option A): every `stride`-th position, zero channels added in equal
//! parts before and behind.

use crate::error::{Error, Result};
use crate::net::instruction::{Instruction, ShortcutOp, Value};
use crate::net::{Builder, NodeId, Op, Shape};

use super::passes::Linear;

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
