//! A frozen batch norm that follows no layer: scale · x + shift per channel (MATH.md, Eq. 10).

use crate::Result;
use crate::net::lower::At;

use super::Lower;
use super::pointwise::PointwiseOp;

/// A node of it, made by freezing.
pub(super) struct Scale;

impl Lower for Scale {
    fn forward(&self, at: &mut At) -> Result<()> {
        let (y, x, by) = (at.y()?, at.x(0)?, at.id());
        at.push(PointwiseOp::ScaleShift { y, x, by });
        Ok(())
    }

    fn tangent(&self, at: &mut At) -> Result<()> {
        let (y, x, by) = (at.tangent()?, at.tangent_of_input()?, at.id());
        at.push(PointwiseOp::Scale { y, x, by });
        Ok(())
    }

    fn backward(&self, at: &mut At) -> Result<()> {
        let (x, by) = (at.dy()?, at.id());
        if let Some(y) = at.dx(0) {
            at.push(PointwiseOp::AddScaled { y, x, by });
        }
        Ok(())
    }

    fn tangent_backward(&self, at: &mut At) -> Result<()> {
        self.backward(at)
    }
}
