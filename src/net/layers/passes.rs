//! The four passes that every layer has, those of a linear map, and those of the image.

use crate::error::Result;
use crate::net::Shape;
use crate::net::emit::At;
use crate::net::instruction::{Instruction, Value};

/// The four passes of a node. None has a default, so that a layer without one does not compile.
pub(in crate::net) trait Lower {
    /// Writes its value.
    fn forward(&self, at: &mut At) -> Result<()>;
    /// Writes its tangent.
    fn tangent(&self, at: &mut At) -> Result<()>;
    /// Adds to the adjoints of its inputs, and to gradients.
    fn backward(&self, at: &mut At) -> Result<()>;
    /// The derivative of `backward` along v.
    fn tangent_backward(&self, at: &mut At) -> Result<()>;
}

/// A layer of one input that is a linear map of it.
pub(super) trait Linear {
    /// y = A x.
    fn map(&self, y: Value, x: Value, from: Shape, to: Shape) -> Instruction;
    /// dx += Aᵀ dy.
    fn adjoint(&self, dx: Value, dy: Value, from: Shape, to: Shape) -> Instruction;
}

/// The four passes of a linear map.
pub(super) struct OfLinear<L>(pub L);

impl<L: Linear> Lower for OfLinear<L> {
    fn forward(&self, at: &mut At) -> Result<()> {
        let map = self.0.map(at.y()?, at.x(0)?, at.from(0), at.shape());
        at.push(map);
        Ok(())
    }

    fn tangent(&self, at: &mut At) -> Result<()> {
        let map = self.0.map(at.tangent()?, at.tangent_of_input()?, at.from(0), at.shape());
        at.push(map);
        Ok(())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let dy = at.dy()?;
        if let Some(dx) = at.dx(0) {
            let adjoint = self.0.adjoint(dx, dy, at.from(0), at.shape());
            at.push(adjoint);
        }
        Ok(())
    }

    fn tangent_backward(&self, at: &mut At) -> Result<()> {
        self.backward(at)
    }
}

/// The image, which is there.
pub(super) struct Input;

impl Lower for Input {
    fn forward(&self, _: &mut At) -> Result<()> {
        Ok(())
    }

    fn tangent(&self, _: &mut At) -> Result<()> {
        Ok(())
    }

    fn backward(&self, _: &mut At) -> Result<()> {
        Ok(())
    }

    fn tangent_backward(&self, _: &mut At) -> Result<()> {
        Ok(())
    }
}
